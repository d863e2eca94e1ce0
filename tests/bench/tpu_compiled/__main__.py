"""The TPU compiler's own figures for a training step, on a machine without a TPU.

    python -m tests.bench.tpu_compiled [--case=encoder,yardstick_erf] [--tree=DIR] [--json=FILE] [--top=20]

Compiles for one v5e chip, case by case: one to five minutes each on two cores. Nothing runs and nothing is timed: the
same program and the same libtpu give the same digits, so any difference is a real change. The accuracy of the two
measures of cycles is discussed in `tests.bench.tpu_compiled.cycles`. Steps on 64 images of 224 pixels in bfloat16,
AdamW in float32:

    encoder    classifier of ViT-L/16: no class token, mean of the patches, 1000 classes, remat dots
    mae        MAE pretraining of ViT-L/16, remat dots
    yardstick  the encoder's work in a plain ViT-L in the usual style, with exact GELU and a float32 softmax;
               yardstick_erf computes the GELU as the encoder does, by erf (flax by the slower erfc);
               yardstick_tanh, yardstick_bf16_softmax and yardstick_tanh_bf16_softmax without one of the two or both
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.tpu_compiled import bundles
from tests.bench.tpu_compiled.cases import CASES, PLACE, TOKENS
from tests.bench.tpu_compiled.cycles import GROUPS, Cost, clock, costs
from tpu.compiler import hlo
from tpu.compiler.topology import compiler_version, parse

ROOT = Path(__file__).resolve().parents[3]
REFUSED = "Unknown command line flag"  # how libtpu ends the process
MEASURES = ("hlo", "bundles", "hbm")


def compile_case(case: str, tree: Path, folder: Path) -> None:
    """Writes program, figures and, if the compiler writes them, schedules to the folder.

    Raises:
      subprocess.CalledProcessError: it does not compile; the compiler's message is on stderr.
    """
    command = [sys.executable, "-m", "tests.bench.tpu_compiled.cases", f"--case={case}", f"--folder={folder}",
               f"--tree={tree}"]  # fmt: skip
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}  # a program from there was not compiled
    schedules = environment | {"LIBTPU_INIT_ARGS": bundles.FLAGS.format(folder / "schedules")}
    done = subprocess.run(command, cwd=ROOT, env=schedules, stderr=subprocess.PIPE, text=True)
    if done.returncode and REFUSED in done.stderr:
        done = subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
    done.check_returncode()


def row(case: str, found: Sequence[Cost], folder: Path, tree: Path) -> dict[str, Any]:
    """All figures of a compiled case. Cycles are None without schedules; memory is in bytes."""
    memory = json.loads((folder / "memory.json").read_text())
    temporaries = memory["temp"] + memory["generated_code"] + memory["output"] - memory["alias"]
    return {
        "case": case,
        "commit": _output("git", "-C", str(tree), "describe", "--always", "--dirty"),
        "place": PLACE,
        "libtpu": compiler_version(),
        **{measure: _total(found, measure) for measure in MEASURES},
        "temporaries": temporaries,
        "peak": memory["argument"] + temporaries,
        "compile_seconds": round(memory["seconds"], 1),
        "groups": {g: {m: _total([c for c in found if c.group == g], m) for m in MEASURES} for g in GROUPS},
    }


def _total(found: Sequence[Cost], measure: str) -> int | None:
    values = [getattr(cost, measure) for cost in found]
    return None if None in values else sum(values)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


HEADER = (
    f"{'':28}{'HLO Mcyc':>10}{'ms':>7}{'bundles':>10}{'ms':>7}{'HBM GB':>8}{'temp GB':>9}{'peak GB':>9}{'seconds':>11}"
)


def table(r: dict[str, Any], hertz: float) -> str:
    """A case and its groups, each with its share of the cycles."""
    lines = [
        f"{r['case']:28}{_cycles(r['hlo'])}{_ms(r['hlo'], hertz)}{_cycles(r['bundles'])}{_ms(r['bundles'], hertz)}"
        f"{r['hbm'] / 1e9:8.1f}{r['temporaries'] / 1e9:9.2f}{r['peak'] / 1e9:9.2f}{r['compile_seconds']:11.0f}"
    ]
    for group, values in r["groups"].items():
        shares = "".join(f"{_cycles(values[m])}{_share(values[m], r[m])}" for m in ("hlo", "bundles"))
        lines.append(f"  {group:26}{shares}{values['hbm'] / 1e9:8.1f}")
    return "\n".join(lines)


def _cycles(n: int | None) -> str:
    return f"{'-':>10}" if n is None else f"{n / 1e6:10.1f}"


def _ms(n: int | None, hertz: float) -> str:
    return f"{'-':>7}" if n is None else f"{n / hertz * 1e3:7.0f}"


def _share(n: int | None, whole: int | None) -> str:
    return f"{'-':>7}" if n is None or not whole else f"{100 * n / whole:6.1f}%"


def costliest(found: Sequence[Cost], top: int) -> str:
    """The instructions with the most cycles, by bundles where they are known."""
    ordered = sorted(found, key=lambda c: -(c.bundles or c.hlo))[:top]
    return "\n".join(
        f"    {c.name:52}{c.group:11}x{c.times:<5}{_cycles(c.hlo)}{_cycles(c.bundles)}{c.hbm / 1e9:8.2f}  {c.scope}"
        for c in ordered
    )


def ratios(rows: dict[str, dict[str, Any]]) -> list[str]:
    """The encoder beside every yardstick that was compiled."""
    ours = rows.get("encoder")
    return [
        f"encoder / {name}: "
        + ", ".join(f"{m} {ours[m] / theirs[m]:.2f}" for m in MEASURES if ours[m] and theirs[m])
        for name, theirs in rows.items()
        if ours and name.startswith("yardstick")
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--case", default="encoder,mae,yardstick,yardstick_erf", help=f"of {', '.join(CASES)}, with commas"
    )
    parser.add_argument("--tree", type=Path, default=ROOT, help="another checkout, whose programs are compiled")
    parser.add_argument("--json", type=Path, help="file that gets one row a case")
    parser.add_argument("--top", type=int, default=0, help="so many instructions are listed too")
    args = parser.parse_args()
    cases = args.case.split(",")
    for case in cases:
        if case not in CASES:
            parser.error(f"--case={case}: the cases are {', '.join(CASES)}")
    place, rows = parse(PLACE), {}
    print(f"{PLACE}, libtpu {compiler_version()}\n{HEADER}", flush=True)
    for case in cases:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            compile_case(case, args.tree.resolve(), folder)
            module = hlo.parse((folder / "program.txt").read_text())
            issued = bundles.read(folder / "schedules")
            found = costs(module, issued, TOKENS.get(case, (196,)), place)
            rows[case] = row(case, found, folder, args.tree)
        print(table(rows[case], clock(place)), flush=True)
        if not issued:
            print("  bundles are left out: this libtpu does not write its schedules")
        if args.top:
            print(costliest(found, args.top), flush=True)
        if args.json:
            args.json.write_text("".join(json.dumps(r) + "\n" for r in rows.values()))
    print("\n".join(ratios(rows)))


if __name__ == "__main__":
    main()
