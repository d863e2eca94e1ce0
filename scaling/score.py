"""Predictions in files, of whichever program, scored against the truth as the field scores them.

    python -m scaling.score --task=segmentation --predictions=DIR --truth=DIR --classes=NAME,NAME,… [--json=FILE]
    python -m scaling.score … --classes=NAME,NAME --colours=#FF0000,#00FF00 [--ignore=5] [--reduce_zero_label]

Segmentation: every file holds one label for each pixel, 0 for the first class, as a PNG (the index of a palette too),
TIFF or NPY; --colours says which class the colours of three channels stand for. Both folders have the same names, but
for the endings. One confusion matrix is counted over all pixels of all images whose true label is not --ignore; where
that label has a name among --classes, its class is left out. --reduce_zero_label is for truth that is counted from 1,
with 0 where nothing is known (LoveDA as it is downloaded), beside predictions that are counted from 0.

mIoU and mF1 are means over the classes that occur in the truth or the predictions, mean accuracy over those that occur
in the truth; a class that occurs nowhere is named, and null in the JSON file. The intervals are those of other images
(bootstrap over images, 95 %).
"""

import json
import math

from scaling import cli
from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.core.paths import check_file
from scaling.data.masks import ColourTable
from scaling.evaluation.mask_files import paired_masks, score_masks
from scaling.evaluation.segmentation import METRICS, SegmentationTotals


def define_flags(define: cli.Define) -> None:
    define.enum("task", None, list(TASKS), "What was predicted.")
    define.path("predictions", None, "Folder of the predictions.")
    define.path("truth", None, "Folder of the truth.")
    define.list("classes", [], "Names of the classes, in the order of their labels from 0.")
    define.integer("ignore", 255, "Label of the pixels of the truth that do not count.")
    define.bool("reduce_zero_label", False, "The truth is counted from 1, and 0 does not count.")
    define.list("colours", [], "Colour of each class, as #3C1098, where files have three channels.")
    define.path("json", "", "Where the scores go, too.")


@cli.command(define_flags, resumes=False)
def main(argv: list[str], flags: cli.Flags) -> None:
    if missing := [name for name in ("task", "predictions", "truth", "classes") if not flags[name].value]:
        raise UserError(f"--{missing[0]} is missing; see --help")
    if flags.json:
        check_file("json", flags.json)
    TASKS[flags.task](flags)


def _segmentation(flags: cli.Flags) -> None:
    classes = tuple(name.strip() for name in flags.classes)
    given = f"--classes={','.join(flags.classes)}"
    if "" in classes:
        raise UserError(f"{given}: name {classes.index('') + 1} is empty; name every class")
    if twice := next((name for name in classes if classes.count(name) > 1), ""):
        raise UserError(f"{given}: {twice} stands there twice; give every class a name of its own")
    if flags.colours and len(flags.colours) != len(classes):
        raise UserError(f"--colours has {len(flags.colours)} colours of {len(classes)} classes; give one for each")
    if flags.reduce_zero_label and 0 <= flags.ignore <= len(classes):
        raise UserError(
            f"--ignore={flags.ignore} is a label that --reduce_zero_label counts anew; take another, as 255"
        )
    colours = ColourTable.of_classes(flags.colours) if flags.colours else None
    pairs = paired_masks(flags.predictions, flags.truth)
    totals = score_masks(pairs.values(), classes, flags.ignore, flags.reduce_zero_label, colours)
    print(totals)
    if flags.json:
        write_whole(flags.json, json.dumps(segmentation_report(totals), indent=1) + "\n")


def segmentation_report(totals: SegmentationTotals) -> dict[str, object]:
    """As it is written in JSON; null for what is not defined."""
    scores = totals.scores()
    each = zip(totals.classes, scores.iou, scores.f1, scores.accuracy, strict=True)
    return {name: _number(getattr(scores, name)) for name in METRICS} | {
        "classes": {
            name: {"iou": _number(iou), "f1": _number(f1), "accuracy": _number(accuracy)}
            for name, iou, f1, accuracy in each
        }
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


TASKS = {"segmentation": _segmentation}


if __name__ == "__main__":
    cli.run(main)
