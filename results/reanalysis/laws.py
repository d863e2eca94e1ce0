"""Constants that others published, fitted again from their own tables: one command each, ours beside theirs.

    PYTHONPATH=. python results/reanalysis/laws.py FOLDER       # of the files named below; two minutes on two cores

Writes laws.md. The files are those of the authors' repositories, unchanged; none is kept here. A file that FOLDER does
not have is named and left out.
"""

import dataclasses
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from scaling.core.files import write_whole

HERE = Path(__file__).parent
RESAMPLES = 200


@dataclasses.dataclass(frozen=True)
class Published:
    """A fit that others published.

    Attributes:
      what: name of the fit and of its data.
      file: their table.
      origin: repository of the table.
      asked: flags of `scaling.laws`.
      theirs: their constants, by our names.
      source: source of the constants.
    """

    what: str
    file: str
    origin: str
    asked: str
    theirs: dict[str, float]
    source: str


EPOCH = "--column='N=`Model Size`' --column='D=`Training FLOP`/6/N' --where='loss<3.44' --x=N,D --y=loss"
PUBLISHED = (
    Published(
        "Chinchilla, 240 points",
        "epoch_chinchilla_fig4.csv",
        "epoch-research/analyzing-chinchilla",
        f"{EPOCH} --form=chinchilla",
        {"A": 482.01, "B": 2085.43, "E": 1.8172, "alpha": 0.3478, "beta": 0.3658},
        "2404.10102, where their optimiser stopped",
    ),
    Published(
        "Chinchilla, 240 points",
        "epoch_chinchilla_fig4.csv",
        "epoch-research/analyzing-chinchilla",
        f"{EPOCH} --form=chinchilla",
        {"A": 477.84, "B": 2143.4, "E": 1.81723, "alpha": 0.34731, "beta": 0.36717},
        "the minimum of the same objective by their grid of starts",
    ),
    Published(
        "(Mis)fitting, 261 runs, rates pooled",
        "misfitting_last_ckpt_only.csv",
        "hadasah/scaling_laws",
        "--x=N,D --y=loss --form=chinchilla",
        {"A": 51.41, "B": 467500, "E": 1.808, "alpha": 0.2003, "beta": 0.6357},
        "their fit of all runs",
    ),
    Published(
        "OpenCLIP, best of five bins of compute",
        "zeroshot_results.csv",
        "LAION-AI/scaling-laws-openclip",
        "--where=downstream_dataset=imagenet1k --where='upstream_dataset!=CLIP-WIT' --x=gmacs_total --y=acc1 --error "
        "--form=line --envelope=5:centre --delta=10",
        {"a": 5.858059196, "b": 0.11138849},
        "`binned_line_fit` of their notebook, run on the file",
    ),
)

INTRODUCTION = """# Published laws, fitted again from their own tables

Our constants beside those of the authors; the difference is ours / theirs - 1. The commands are below the tables, and
the files are those of the authors' repositories.

"""
CHOICE = """
How the exponents depend on the regression loss: Huber's loss with delta 0.001, or least squares, both of log
residuals. The table above has Huber's loss for the first two fits, and least squares for the third.

"""
ABSENT = (
    "isoFLOPs of Llama 3 (2407.21783): we know of no table by its authors",
    "Pearce and Song (2406.12907): their repository has no table, only a script that starts from the constants of "
    "Chinchilla",
)


def _flags(one: Published) -> str:
    return f"{one.asked} --resamples={RESAMPLES}"


def fitted(one: Published, folder: Path) -> dict[str, dict[str, float]]:
    """Our constants, with their intervals."""
    with tempfile.TemporaryDirectory() as made:
        out = Path(made) / "law.json"
        flags = [*shlex.split(_flags(one)), f"--json={out}"]
        subprocess.run([sys.executable, "-m", "scaling.laws", str(folder / one.file), *flags], check=True)
        return json.loads(out.read_text())


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} FOLDER")
    folder, found = Path(sys.argv[1]), dict[tuple[str, str], dict]()
    head = f"| fit | constant | ours | 95 % interval | theirs | difference | source of theirs |\n|{'---|' * 7}\n"
    lines, moved, commands, absent = [], [], dict[str, str](), list(ABSENT)
    for one in PUBLISHED:
        if not (folder / one.file).is_file():
            absent.append(f"{one.what}: {one.file} of {one.origin} is not in the folder that was read")
            print(f"left out: {absent[-1]}", file=sys.stderr)
            continue
        key = (one.file, one.asked)
        if key not in found:
            found[key] = fitted(one, folder)
            loss = found[key]["loss"]
            moved += [
                f"| {one.what} | {name} | {loss['exponents'][name]:.4g} | {other:.4g} |\n"
                for name, other in loss["exponents_by_the_other"].items()
            ]
        commands[one.what] = f"python -m scaling.laws {one.file} {_flags(one)}"
        for name, theirs in one.theirs.items():
            p = found[key]["parameters"][name]
            lines.append(
                f"| {one.what} | {name} | {p['value']:.5g} | {p['low']:.4g} to {p['high']:.4g} | {theirs:.5g} | "
                f"{p['value'] / theirs - 1:+.3%} | {one.source} |\n"
            )
    text = "".join(f"# {what}\n{command}\n" for what, command in commands.items())
    choice = "| fit | exponent | loss of the table above | other loss |\n|---|---|---|---|\n" + "".join(moved)
    left_out = "".join(f"- {line}\n" for line in absent)
    write_whole(
        HERE / "laws.md",
        f"{INTRODUCTION}{head}{''.join(lines)}{CHOICE}{choice}\n```bash\n{text}```\n\nNot fitted:\n\n{left_out}",
    )


if __name__ == "__main__":
    main()
