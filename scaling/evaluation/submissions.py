"""Checks files of predictions in the formats of data sets' servers, before they are submitted."""

from collections.abc import Mapping

import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.data.images import CorruptImage
from scaling.data.masks import decode_mask
from scaling.data.sources.loveda import CLASSES
from scaling.data.targets import label_histogram

LOVEDA_TEST = 1796  # images of the test split


def check_loveda(folder: epath.PathLike, sizes: Mapping[str, tuple[int, int]]) -> str:
    """Checks a submission to LoveDA's server: one folder with exactly an `N.png` for each image, 8 bits, one channel,
    with the labels 0 to 6 (those of its own masks minus one).

    Args:
      folder: folder of the files.
      sizes: height and width of every image, by file name.

    Returns:
      The number of files and their labels, in words.

    Raises:
      UserError: a file is missing, has another size, kind or label, or does not belong in the folder.
    """
    where, counts = epath.Path(folder), np.zeros(256, np.int64)
    if others := sorted({file.name for file in where.iterdir()} - set(sizes)):
        raise UserError(
            f"{where}: {others[0]} is not a map of an image of the test split; the server takes nothing else"
        )
    for name, size in sizes.items():
        if not (where / name).is_file():
            raise UserError(f"{where}: {name} is missing")
        try:
            data = (where / name).read_bytes()
            labels = decode_mask(data, name)
        except CorruptImage as e:
            raise UserError(f"{where}: {e}") from e
        if not data.startswith(b"\x89PNG") or data[24:26] != b"\x08\x00":  # bit depth, and the colour type of grey
            raise UserError(f"{where}: {name} is not a grey PNG of 8 bits, whose numbers the server reads as they are")
        if labels.shape != size:
            raise UserError(
                f"{where}: {name} has {labels.shape[0]} x {labels.shape[1]} pixels, its image {size[0]} x {size[1]}"
            )
        if labels.max() >= len(CLASSES):
            raise UserError(f"{where}: {name} has labels beyond 0 to {len(CLASSES) - 1}: {label_histogram(labels)}")
        counts += np.bincount(labels.ravel(), minlength=256)
    shares = ", ".join(f"{name} {count / counts.sum():.1%}" for name, count in zip(CLASSES, counts, strict=False))
    whole = "" if len(sizes) == LOVEDA_TEST else f"; the server wants all {LOVEDA_TEST:,} of the test split"
    return f"{len(sizes):,} files, labels 0 to {len(CLASSES) - 1} as the server reads them ({shares}){whole}"
