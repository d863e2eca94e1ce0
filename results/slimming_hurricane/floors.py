"""Scores hand-made features on the sets of this study: what its encoder has to be above.

    PYTHONPATH=. python results/slimming_hurricane/matched.py --data=../shared/data --output=runs/matched
    PYTHONPATH=. python results/slimming_hurricane/floors.py --data=../shared/data --matched=runs/matched \
        --output=results/slimming_hurricane/floors.rows.jsonl

Images of 64 pixels, normalised as the encoder takes them (`results/hurricane_ti8/config.json`); no encoder is needed.
"""

import argparse
import json
from pathlib import Path

from scaling.core.rows import Row, provenance, write_rows
from scaling.data.config import DataConfig
from scaling.encoders.encoder import Encoder
from scaling.encoders.handmade import FLOORS, floor_features
from scaling.evaluation.probes import PROBES
from scaling.models.variants import encoder
from scaling.studies.rows import score_rows
from scaling.studies.slimming.datasets import DatasetConfig, load
from scaling.training.config import TrainConfig

RUN = Path(__file__).parents[1] / "hurricane_ti8" / "config.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--matched", type=Path, required=True, help="folder with the tables of matched.py")
    parser.add_argument("--output", type=Path, required=True, help="file of the rows")
    arguments = parser.parse_args()
    data = json.loads(RUN.read_text())["data"]
    statistics = DataConfig(mean=tuple(data["mean"]), std=tuple(data["std"]))
    takes = Encoder(encoder("vit_ti", image_size=64, patch_size=8), None, TrainConfig(data=statistics))
    sources = {"rssccn7": f"zip:{arguments.data}/rssccn7/images.zip"}
    for name in ("rssccn7", "caltech101"):
        sources[f"matched {name}"] = f"zip:{arguments.data}/{name}/images.zip?labels={arguments.matched}/{name}.csv"
    rows = [row for dataset, source in sources.items() for row in measured(takes, dataset, source)]
    write_rows(arguments.output, {row.identity: row for row in rows}.values())


def measured(takes: Encoder, dataset: str, source: str) -> list[Row]:
    splits, rows = load(takes, DatasetConfig(source=source)), []
    for name in FLOORS:
        features = floor_features(name, {split: there.images for split, there in splits.items()})
        for probe, run in PROBES.items():
            pairs = [(features[split], splits[split].labels) for split in ("train", "test")]
            row = Row(
                study="slimming_hurricane_floors", model="none", objective="none", params=0, flops=0, compute=0.0,
                compute_published=0.0, width_ratio=1.0, depth_ratio=0.0, mode="control", ordering=name, recovery="none",
                dataset=dataset, split="test", probe=probe, metric="", value=None, **provenance(),
            )  # fmt: skip
            rows += score_rows(row, run(*pairs))
            print(f"{dataset:<20} {name:<20} {probe:<7} {rows[-1].metric} {rows[-1].value:.4f}", flush=True)
    return rows


if __name__ == "__main__":
    main()
