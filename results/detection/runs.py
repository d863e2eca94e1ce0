"""Trains one detector of the study, and keeps what its scores follow from, without pictures, places or outlines.

    PYTHONPATH=. python results/detection/runs.py NAME --data=../shared/data/obb --encoder=DIR --runs=runs/detection

`RUNS` lists the names; every run is a call of `scaling.finetune` with a config and some fields. Appends to
`matches.jsonl` one line for the run and one for each class: for every test image the number of truths that count, and
for every detection, best first, its image, its score and whether it is right (1), wrong (0) or neither (-1).
`verdicts.py` computes the numbers of the page from them. The seconds are those of this process, which is all of the run
if it was not interrupted.
"""

import argparse
import json
import resource
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import scaling
from scaling.core.rows import provenance
from scaling.encoders.controls import random_weights


class Run(NamedTuple):
    """One call of `scaling.finetune`.

    Attributes:
      config, fields: the config, and fields that override its own.
      random: whether the encoder starts from random weights.
      of: finished run that is only scored again, with a field that differs; empty to train.
    """

    config: str
    fields: dict[str, Any]
    random: bool = False
    of: str = ""


# Few channels and blocks, and attention within windows of 8 x 8 patches but for the last block: for one core.
SMALL = {
    "batch_size": 2,
    "image_size": 256,
    "normalise": "source",
    "log_every": 20,
    "eval_every": 10_000,
    "checkpoint_every": 200,
    "model.window": 8,
    "model.global_blocks": (4,),
    "task.channels": 32,
    "task.hidden": 256,
    "task.detections": 200,
    "task.proposals": 300,
    "task.roi_samples": 128,
    "optimizer.layer_decay": 0.9,
}
SHIPS = SMALL | {
    "image_size": 192,
    "image_width": 256,
    "epochs": 1.5,
    "warmup_epochs": 0.1,
    "data.bands": (0, 0, 0),
    "data.split": "train",
    "data.eval_split": "test[:8]",
    "data.crop_scale": (0.7, 1.0),
    "task.anchor_size": 0.5,
    "task.proposals": 500,
    "optimizer.base_lr": 0.1,
}
SAME = SMALL | {"data.eval_split": "train[:2]", "data.crop_scale": (1.0, 1.0), "data.flips": "none"}
SSDD = "detect.py:dota:{DATA}/ssdd?classes=ship"
TILES = "detect.py:arrayrecord:{RUNS}/dota256"
TWENTY = SAME | {
    "data.split": "train[14:]",
    "test_split": "train[14:]",
    "epochs": 100.0,
    "warmup_epochs": 4.0,
    "optimizer.base_lr": 0.13,
}
ALL = SAME | {
    "data.split": "train",
    "test_split": "train",
    "epochs": 40.0,
    "warmup_epochs": 2.0,
    "optimizer.base_lr": 0.08,
}
RUNS = {
    "dota_34_tiles": Run(TILES, ALL),
    "dota_34_tiles_1000": Run(TILES, ALL | {"task.proposals": 1000}, of="dota_34_tiles"),
    "dota_20_tiles": Run(TILES, TWENTY),
    "dota_20_tiles_1000": Run(TILES, TWENTY | {"task.proposals": 1000}, of="dota_20_tiles"),
    "scenes": Run("detect_scenes.py", {}),
    "ssdd_pretrained": Run(SSDD, SHIPS),
    "ssdd_random": Run(SSDD, SHIPS, random=True),
    "ssdd_retinanet": Run(SSDD, SHIPS | {"task.head": "rotated_retinanet", "task.anchor_size": 1.0}),
}


def lines_of(name: str, tuned: Any) -> list[dict[str, Any]]:
    totals = tuned.predictions.totals
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = round(used.ru_utime + used.ru_stime)
    run = {"run": name, "steps": tuned.config.steps, "core_seconds": seconds, "scores": tuned.scores(), **provenance()}
    lines = [run]
    for kind in totals.classes:
        of = totals.matches(kind)
        right, wrong = of.outcomes(totals.rules)
        order, counted = of.order(totals.rules), of.there.images[of.positives(totals.rules)]
        lines.append(
            {
                "run": name,
                "class": kind,
                "truths": np.bincount(counted, minlength=totals.images).tolist(),
                "image": of.images[order].tolist(),
                "score": [round(float(score), 4) for score in of.scores[order]],
                "outcome": np.where(right, 1, np.where(wrong, 0, -1)).tolist(),
            }
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=RUNS)
    parser.add_argument("--data", default="../shared/data/obb")
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--runs", default="runs/detection")
    flags = parser.parse_args()
    run, encoder = RUNS[flags.name], scaling.load(flags.encoder)
    places = {"DATA": flags.data, "RUNS": flags.runs}
    fields = {name: x.format(**places) if isinstance(x, str) else x for name, x in run.fields.items()}
    encoder = random_weights(encoder, 0) if run.random else encoder
    folder, change = Path(flags.runs) / (run.of or flags.name), ["task.proposals"] if run.of else []
    tuned = scaling.finetune(encoder, run.config.format(**places), folder, fields, change=change)
    print(tuned.summary())
    with (Path(__file__).parent / "matches.jsonl").open("a") as file:
        file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines_of(flags.name, tuned))


if __name__ == "__main__":
    main()
