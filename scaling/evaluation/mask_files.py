"""Scores segmentation from files of any program: a folder of predictions and one of truth with the same file names."""

from collections.abc import Iterable

import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.data.images import CorruptImage
from scaling.data.masks import SUFFIXES, ColourTable, decode_mask, without_zero
from scaling.data.sources.pairs import FolderFiles, by_name
from scaling.evaluation.segmentation import SegmentationTotals

Pair = tuple[epath.Path, epath.Path]  # prediction, truth


def paired_masks(predictions: epath.PathLike, truth: epath.PathLike) -> dict[str, Pair]:
    """Pairs of label files in two folders and their subfolders, matched by path without ending, in alphabetical order.

    Raises:
      UserError: a folder does not exist or has no label files, two of its files have the same name except for the
        ending, or a file has no partner.
    """
    said, true = _named("predictions", predictions), _named("truth", truth)
    for mine, here, theirs, there in (
        (true, f"--truth={truth}", said, f"--predictions={predictions}"),
        (said, f"--predictions={predictions}", true, f"--truth={truth}"),
    ):
        if alone := sorted(mine.keys() - theirs.keys()):
            raise UserError(
                f"{there}: no partner of {len(alone)} of the {len(mine)} files of {here}, first "
                f"{mine[alone[0]].name}; both folders must have the same names, except for the extensions"
            )
    return {name: (said[name], true[name]) for name in sorted(true)}


def _named(flag: str, folder: epath.PathLike) -> dict[str, epath.Path]:
    where, root = f"--{flag}={folder}", epath.Path(folder)
    if not root.is_dir():
        raise UserError(f"{where}: no such folder; give one that exists")
    files = FolderFiles(str(root), lambda name: name.lower().endswith(SUFFIXES)).names
    if not files:
        raise UserError(f"{where}: no files of labels ({', '.join(SUFFIXES)})")
    return {name: root / file for name, file in by_name(where, files).items()}


def score_masks(
    pairs: Iterable[Pair],
    classes: tuple[str, ...],
    ignore: int = 255,
    reduce_zero_label: bool = False,
    colours: ColourTable | None = None,
) -> SegmentationTotals:
    """Counts pairs of files, with one pair in memory at a time.

    Args:
      pairs: see `paired_masks`.
      classes: names of the labels 0, 1, …
      ignore: the ignored label of the truth.
      reduce_zero_label: whether the labels of the truth, but not of the predictions, start at 1 with 0 for unlabelled
        pixels, as in LoveDA's files: 0 becomes `ignore`, and 1 becomes the class 0.
      colours: labels of the colours in files with three channels.

    Raises:
      UserError: a file that cannot be read, has unknown labels or differs in size from its partner; the message has its
        path.
    """
    totals = SegmentationTotals(classes, ignore)
    for prediction, truth in pairs:
        said, true = _read(prediction, colours), _read(truth, colours)
        true = without_zero(true, ignore) if reduce_zero_label else true
        try:
            totals.add(said, true)
        except UserError as e:
            raise UserError(f"{prediction} beside {truth}: {e}") from e
    return totals


def _read(file: epath.Path, colours: ColourTable | None) -> np.ndarray:
    try:
        return decode_mask(file.read_bytes(), str(file), colours)
    except OSError as e:
        raise UserError(f"{file}: cannot be read ({e.strerror or e}); make it readable") from e
    except CorruptImage as e:
        raise UserError(f"{e}; repair the file") from e
