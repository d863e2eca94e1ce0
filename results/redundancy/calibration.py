"""S1, as `PLAN.md` has it: is the gain of a repaired cut the repair, or the look at the target?

    PYTHONPATH=. python results/redundancy/calibration.py measure --checkpoint=runs/length/runs/seed0_steps600 \\
        --data=../shared/data --tables=runs/redundancy --output=runs/calibration/rows.jsonl
    PYTHONPATH=. python results/redundancy/calibration.py decide runs/calibration/rows.jsonl

For every calibration seed 256 training images of the probed set leave the gallery, for all arms. Rows have the arm as
their recovery (`ridge target`) and the seed of the calibration; the published cut and the arms of a seed have the same
gallery and the same test images.
"""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from scaling.analysis.significance import holm
from scaling.core.rows import Row, read_rows, write_rows
from scaling.encoders.encoder import Encoder
from scaling.encoders.loading import load_encoder
from scaling.encoders.slimmed import Slimmer
from scaling.evaluation.probes import PROBES
from scaling.evaluation.scores import percentile_interval
from scaling.studies.checking import Outcomes
from scaling.studies.rows import encoder_row, score_rows
from scaling.studies.slimming.datasets import DatasetConfig, Images, load

WIDTHS, SEEDS, IMAGES, MARGIN = (0.05, 0.1, 0.25), 5, 256, 0.015
SETS = ("rssccn7", "eurosat", "caltech101", "tinyimagenet")
OTHER = {"rssccn7": "caltech101", "eurosat": "caltech101", "caltech101": "rssccn7", "tinyimagenet": "rssccn7"}
ARMS = ("target", "outside", "tiles", "other")
SCORE, PLAIN = "macro_accuracy", "none"


def some(images: np.ndarray, seed: int, rows: np.ndarray | None = None) -> np.ndarray:
    """256 of the images, or of some rows of them, drawn by the seed."""
    among = np.arange(len(images)) if rows is None else rows
    return images[np.sort(np.random.default_rng(seed).permutation(among)[:IMAGES])]


def measured(encoder: Encoder, name: str, splits: dict[str, dict[str, Images]], tiles: np.ndarray) -> Iterator[Row]:
    """All rows of one probed set."""
    train, test = splits[name]["train"], splits[name]["test"]
    about = encoder.row_fields("calibration", {"study": "calibration", "widths": WIDTHS, "images": IMAGES})
    for seed in range(SEEDS):
        order = np.random.default_rng((seed, len(train.labels))).permutation(len(train.labels))
        held, gallery = np.sort(order[:IMAGES]), np.sort(order[IMAGES:])
        looks = {
            "target": some(train.images, seed, gallery),
            "outside": train.images[held],
            "tiles": some(tiles, seed),
            "other": some(splits[OTHER[name]]["train"].images, seed),
        }
        for arm in (PLAIN, *ARMS):
            slimmer = Slimmer(encoder, looks.get(arm))
            for width in WIDTHS:
                cut = ("first", "none") if arm == PLAIN else ("svd", "ridge")
                small = slimmer(width, "inner", *cut, seed)
                features = [small.features(x, normalised=True) for x in (train.images[gallery], test.images)]
                for probe, run in PROBES.items():
                    options = {"seed": seed} if probe == "linear" else {}
                    found = run((features[0], train.labels[gallery]), (features[1], test.labels), **options)
                    row = encoder_row(
                        (0, 0, {"full": width, "published": width}), study="calibration", width_ratio=width,
                        depth_ratio=1.0, mode="inner", ordering=cut[0],
                        recovery=cut[1] if arm == PLAIN else f"ridge {arm}", dataset=name, split="test", seed=seed,
                        **about,
                    )  # fmt: skip
                    yield from score_rows(dataclasses.replace(row, probe=probe), found)


def differences(rows: Sequence[Row], probe: str, arm: str, draws: int = 1000) -> tuple[float, np.ndarray]:
    """Arm minus target, the mean over sets and widths, and its hierarchical bootstrap: of every set the calibration
    seeds are drawn, and the test images, the same for all widths and seeds.
    """
    outcomes = Outcomes(rows, draws)
    by = {
        (r.dataset, r.width_ratio, r.seed, r.recovery.removeprefix("ridge ")): outcomes.scored(r)
        for r in rows
        if (r.probe, r.metric) == (probe, SCORE) and outcomes.known(r)
    }
    means, replicates = [], []
    for dataset in sorted({key[0] for key in by}):
        cells = sorted({(s, seed) for name, s, seed, _ in by if name == dataset})
        seeds = sorted({seed for _, seed in cells})
        chosen = np.random.default_rng(SETS.index(dataset)).integers(len(seeds), size=(len(seeds), draws))
        for width in sorted({s for s, _ in cells}):
            pairs = [(by[dataset, width, seed, arm], by[dataset, width, seed, "target"]) for seed in seeds]
            means.append(np.mean([a[0] - b[0] for a, b in pairs]))
            each = np.array([a[1] - b[1] for a, b in pairs])
            replicates.append(np.take_along_axis(each, chosen, axis=0).mean(0))
    return float(np.mean(means)), np.mean(replicates, axis=0)


def decide(rows: Sequence[Row], draws: int = 1000) -> list[str]:
    """The conclusions, line by line. The p of not being inferior is that of the normal distribution with the
    deviation of the bootstrap.
    """
    said, tests = [], []
    for probe in PROBES:
        for arm in ("tiles", "outside", "other"):
            value, replicates = differences(rows, probe, arm, draws)
            low, high = percentile_interval(replicates)
            words = "" if low is None or high is None else f" ({100 * low:+.2f} to {100 * high:+.2f})"
            said.append(f"{probe:<7} {arm} minus target {100 * value:+.2f} points{words}")
            if arm == "tiles":
                tests.append(
                    (
                        probe,
                        value,
                        float(stats.norm.sf((value + MARGIN) / np.std(replicates))),
                        np.quantile(replicates, 0.05),
                    )
                )
    adjusted = holm(np.array([p for _, _, p, _ in tests]))
    for (probe, value, _, low), p in zip(tests, adjusted, strict=True):
        verdict = "" if p < 0.05 else "not shown to be "
        said.append(
            f"{probe}: tiles are {verdict}not inferior to target by {100 * MARGIN:g} points: {100 * value:+.2f}, lower "
            f"bound {100 * low:+.2f}, Holm p {p:.4f}"
        )
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    measure = parts.add_parser("measure")
    flags = {"checkpoint": "run of the encoder", "data": "folder with the data sets", "output": "file of the rows"}
    for name, what in {**flags, "tables": "folder with caltech101.csv of tables.py"}.items():
        measure.add_argument(f"--{name}", type=Path, required=True, help=what)
    parts.add_parser("decide").add_argument("file", type=Path)
    arguments = parser.parse_args()
    if arguments.part == "decide":
        print("\n".join(decide(read_rows(arguments.file))))
        return
    encoder = load_encoder(arguments.checkpoint)
    sources = {name: f"zip:{arguments.data}/{name}/images.zip" for name in (*SETS, "hurricane")}
    sources["caltech101"] += f"?labels={arguments.tables}/caltech101.csv"
    splits = {name: load(encoder, DatasetConfig(source=source)) for name, source in sources.items()}
    tiles = splits.pop("hurricane")["train"].images
    rows = [row for name in SETS for row in measured(encoder, name, splits, tiles)]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_rows(arguments.output, {row.identity: row for row in rows}.values())


if __name__ == "__main__":
    main()
