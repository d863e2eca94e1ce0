"""Draws every figure of the studies again from the rows beside it, in the style of `scaling.core.canvas`.

    PYTHONPATH=. python results/figures.py [FOLDER …]      # of all studies by default; a minute

Files that are there are replaced, those of other kinds are not added. Not drawn: pictures that need an encoder and
images (`quickstart/reconstruction.png`), and the page of `width_depth/report.png`.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from etils import epath

from scaling import cli
from scaling.analysis import coord_check
from scaling.analysis.efficiency import draw_efficiency
from scaling.analysis.retention import draw_curves, draw_spectra
from scaling.analysis.sweep_figure import draw_sweep
from scaling.core.rows import Row, read_rows
from scaling.training.loss_curve import loss_curve

HERE = Path(__file__).parent
STUDIES: dict[str, Callable[[Path, epath.Path], None]] = {}


def study(draw: Callable[[Path, epath.Path], None]) -> Callable[[Path, epath.Path], None]:
    STUDIES[draw.__name__] = draw
    return draw


def _rows(folder: Path, *names: str) -> list[Row]:
    return [row for name in names for row in read_rows(folder / f"{name}.rows.jsonl")]


@study
def width_depth(folder: Path, output: epath.Path) -> None:
    for name in ("width", "depth", "lr_transfer"):
        draw_sweep(_rows(folder, name), output / name)
    longer = _rows(folder, "lr_transfer_240", "tuning", "width")
    shown = {(64, "mup"), (256, "mup"), (256, "standard")}  # of width the rate 0.008, which the others do not have
    chosen = [r for r in longer if (r.embed, r.parametrization) in shown and r.seed == 0]
    draw_sweep(chosen, output / "lr_transfer_240")
    coord_check.draw(_rows(folder, "coordinates"), "embed", output / "coordinates")
    flags = ["--x=params", "--y=eval_loss", "--form=power", "--where=parametrization=mup", f"--figure={output}/law_mup"]
    if cli.call("scaling.laws", [str(folder / "width.rows.jsonl"), *flags]):
        sys.exit("law_mup could not be drawn")


@study
def slimming_hurricane(folder: Path, output: epath.Path) -> None:
    draw_curves(_rows(folder, "rssccn7"), output / "curves")
    draw_curves(_rows(folder, "matched"), output / "matched")
    draw_spectra(_rows(folder, "rssccn7"), output / "spectra")


@study
def segmentation(folder: Path, output: epath.Path) -> None:
    draw_efficiency(_rows(folder, "roads"), output / "roads")


@study
def depth(folder: Path, output: epath.Path) -> None:
    for name in ("deep12", "deep24"):
        draw_curves(_rows(folder, name), output / name)


@study
def slimming_galileo(folder: Path, output: epath.Path) -> None:
    draw_curves(read_rows(folder / "rows.jsonl"), output / "curves")


@study
def hurricane_ti8(folder: Path, output: epath.Path) -> None:
    loss_curve(output / "loss.png", [json.loads(line) for line in (folder / "metrics.jsonl").open()])


def main() -> None:
    for name in sys.argv[1:] or STUDIES:
        if name not in STUDIES:
            sys.exit(f"{name}: give {', '.join(STUDIES)}")
        with tempfile.TemporaryDirectory() as made:
            STUDIES[name](HERE / name, epath.Path(made))
            for file in sorted(Path(made).iterdir()):
                if (HERE / name / file.name).exists():
                    shutil.copy(file, HERE / name / file.name)
                    print(HERE / name / file.name)


if __name__ == "__main__":
    main()
