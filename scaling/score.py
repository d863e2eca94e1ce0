"""Scores predictions in files, from any program, against the truth by the field's standard rules.

    python -m scaling.score --task=segmentation --predictions=DIR --truth=DIR --classes=NAME,NAME,… [--json=FILE]
    python -m scaling.score … --classes=NAME,NAME --colours=#FF0000,#00FF00 [--ignore=5] [--reduce_zero_label]
    python -m scaling.score --task=detection --rules=dota|dior|area --predictions=DIR --truth=DIR [--json=FILE]

Segmentation: every file holds one label for each pixel, 0 for the first class, as a PNG (with or without a palette),
TIFF or NPY. For files of three channels, --colours lists the colour of each class. The files in both folders must have
the same names, except for their extensions. One confusion matrix counts all pixels of all images whose true label is
not --ignore; if --classes names that label, its class is left out. --reduce_zero_label is for truth counted from 1,
with 0 for unknown (LoveDA as downloaded), and predictions counted from 0.

mIoU and mF1 are means over the classes that occur in the truth or the predictions, mean accuracy over those that occur
in the truth; a class that does not occur is listed, and null in the JSON file. The 95 % intervals are bootstrap
intervals over images.

Detection: --predictions holds `Task1_<class>.txt` (lines `image score x1 y1 … x4 y4`), and --truth holds an
`<image>.txt` for every image (lines `x1 y1 … x4 y4 class [difficult]`), both in pixels of whole images. --rules=dota
follows DOTA's devkit: an IoU above 0.5, 11-point average precision, and difficult objects ignored; dior needs an IoU of
0.5 and counts all objects; area is like dota, but computes average precision as the area under the interpolated
precision-recall curve instead of at eleven recalls. Scores under the other rules are printed too. The classes are those
of the truth and of the data set whose rules are used, or --classes. A class in which no object counts is left out of
the mean and listed; a class without detections scores 0.
"""

import json

from scaling import cli
from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.core.paths import check_file
from scaling.data.masks import ColourTable
from scaling.evaluation.detection import RULES
from scaling.evaluation.detection_files import score_files
from scaling.evaluation.detection_report import detection_report, detection_table, number
from scaling.evaluation.mask_files import paired_masks, score_masks
from scaling.evaluation.segmentation import METRICS, SegmentationTotals


def define_flags(define: cli.Define) -> None:
    define.enum("task", None, list(TASKS), "Task of the predictions.")
    define.path("predictions", None, "Folder of the predictions.")
    define.path("truth", None, "Folder of the truth.")
    define.enum("rules", "dota", list(RULES), "Detection: rules of the score.")
    define.list("classes", [], "Names of the classes; for segmentation in the order of their labels, from 0.")
    define.bool("merge", False, "Detection: first merge the predictions of tiles, which are named P0001__1__824___0.")
    define.path("images", "", "Detection: file with the names of the images to score; by default all of the truth.")
    define.integer("ignore", 255, "Label of the pixels of the truth that are not scored.")
    define.bool("reduce_zero_label", False, "Labels of the truth start at 1, and 0 is not scored.")
    define.list("colours", [], "Colour of each class, as #3C1098, in files of three channels.")
    define.path("json", "", "File for the scores, as JSON.")


@cli.command(define_flags, resumes=False)
def main(argv: list[str], flags: cli.Flags) -> None:
    cli.require(flags, "task=NAME", "predictions=DIR", "truth=DIR")
    if flags.json:
        check_file(
            "json", flags.json, {f"the --{name}": [flags[name].value] for name in ("predictions", "truth", "images")}
        )
    TASKS[flags.task](flags)


def _segmentation(flags: cli.Flags) -> None:
    classes = _classes(flags)
    if not classes:
        raise UserError("--classes: is missing; give the names of the classes, in the order of their labels")
    if flags.colours and len(flags.colours) != len(classes):
        raise UserError(f"--colours has {len(flags.colours)} colours for {len(classes)} classes; give one for each")
    if flags.reduce_zero_label and 0 <= flags.ignore <= len(classes):
        raise UserError(
            f"--ignore={flags.ignore}: --reduce_zero_label renumbers this label; choose another, such as 255"
        )
    colours = ColourTable.of_classes(flags.colours) if flags.colours else None
    pairs = paired_masks(flags.predictions, flags.truth)
    totals = score_masks(pairs.values(), classes, flags.ignore, flags.reduce_zero_label, colours)
    print(totals)
    if flags.json:
        write_whole(flags.json, json.dumps(segmentation_report(totals), indent=1) + "\n")


def _detection(flags: cli.Flags) -> None:
    totals = score_files(flags.predictions, flags.truth, flags.rules, _classes(flags), flags.images, flags.merge)
    print(detection_table(totals))
    if flags.json:
        write_whole(flags.json, json.dumps({"rules": flags.rules} | detection_report(totals), indent=1) + "\n")


def _classes(flags: cli.Flags) -> tuple[str, ...]:
    classes = tuple(name.strip() for name in flags.classes)
    given = f"--classes={','.join(flags.classes)}"
    if "" in classes:
        raise UserError(f"{given}: name {classes.index('') + 1} is empty; name every class")
    if twice := next((name for name in classes if classes.count(name) > 1), ""):
        raise UserError(f"{given}: {twice} occurs twice; give every class a different name")
    return classes


def segmentation_report(totals: SegmentationTotals) -> dict[str, object]:
    """The scores as written in JSON; undefined ones are null."""
    scores = totals.scores()
    each = zip(totals.classes, scores.iou, scores.f1, scores.accuracy, strict=True)
    return {name: number(getattr(scores, name)) for name in METRICS} | {
        "classes": {
            name: {"iou": number(iou), "f1": number(f1), "accuracy": number(accuracy)}
            for name, iou, f1, accuracy in each
        }
    }


TASKS = {"segmentation": _segmentation, "detection": _detection}


if __name__ == "__main__":
    cli.run(main)
