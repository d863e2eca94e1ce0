"""Segmentation scored from files that anyone made: a folder of predictions and one of the truth, of the same names."""

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
    """Files of labels in two folders and all below them, by their path without its ending, in alphabetical order.

    Raises:
      UserError: a folder is not there or has no files of labels, two files of one have the same name but for the
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
                f"{mine[alone[0]].name}; both folders need the same names, but for the endings"
            )
    return {name: (said[name], true[name]) for name in sorted(true)}


def _named(flag: str, folder: epath.PathLike) -> dict[str, epath.Path]:
    where, root = f"--{flag}={folder}", epath.Path(folder)
    if not root.is_dir():
        raise UserError(f"{where}: no such folder")
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
    """Counts pairs of files, one after the other in memory.

    Args:
      pairs: see `paired_masks`.
      classes: names of the labels 0, 1, …
      ignore: the label of the truth that does not count.
      reduce_zero_label: whether the truth, and it alone, is counted from 1 with 0 where nothing is known, as LoveDA's
        files are: 0 becomes `ignore`, and 1 becomes the class 0.
      colours: labels of the colours in files of three channels.

    Raises:
      UserError: with the path of a file that cannot be read, has other labels or is not as large as its partner.
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
        raise UserError(f"{e}; mend the file") from e
