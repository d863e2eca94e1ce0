"""Images and features as arrays: normalised, and in numpy files that are memory-mapped or read, and written block
by block.
"""

import contextlib
import io
import logging
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.core.files import DAMAGED_ZIP, in_bucket, whole_file

# Messages of numpy, and what they mean.
_SAID = {
    "Object arrays": "it holds Python objects, not numbers",
    "pickled": "it is not an array of numbers",
    "No data left": "it is empty",
}

ENDINGS = (".npy", ".npz")
_LOOKED_AT = 1024  # images checked for normalisation
_FAR = 10.0  # mean or deviation that shows images are not normalised; reflectances of another sensor stay below
_SAMPLED = 64  # images whose units are checked
_SEVERAL = 4  # images that are not all above the mean of the training in all bands
_LEVELS = 16  # more different values than those of a mask
_FLAT = 0.05  # contrast of images, in deviations of the training, that hardly any image has

log = logging.getLogger(__name__)


def normalise(image: Any, mean: Any, std: Any) -> Any:
    """(image - mean) / std per band in float32, for numpy and jax arrays [..., bands]; mean and std in pixel values."""
    scale = 1 / np.asarray(std, np.float32)
    return image.astype(np.float32) * scale - np.asarray(mean, np.float32) * scale


def far_from_normalised(images: np.ndarray) -> str:
    """Describes the mean and deviation of the first images if they are far from 0 and 1; else empty."""
    some = images[:_LOOKED_AT]
    if not some.size:
        return ""
    mean, deviation = float(some.mean(dtype=np.float64)), float(some.std(dtype=np.float64))
    if not max(abs(mean), deviation) > _FAR:
        return ""
    return f"mean {mean:.4g} and deviation {deviation:.4g}, where normalised ones have about 0 and 1"


def other_units(pixels: np.ndarray, mean: Any, std: Any) -> tuple[str, bool]:
    """Whether pixels [N, h, w, C] seem to be in other units than images with this mean and std per band.

    Returns:
      The evidence in words, empty if there is none; and whether it is conclusive. Low contrast alone is not, because
      an image in the right units can have little contrast; nor are negative values.
    """
    some = _sampled(pixels)
    if not some.size:
        return "", False
    x = normalise(some, mean, std)
    low, high = float(some.min()), float(some.max())
    contrast = float((x - x.mean((0, 1, 2), keepdims=True)).std())
    is_fraction = np.issubdtype(some.dtype, np.floating) and min(mean) > _FAR
    shrunk = is_fraction and low < high and (high <= 1 if low >= 0 else max(-low, high) <= _FAR)
    certain = bool(far_from_normalised(x)) or shrunk
    overflown = low < 0 and min(mean) > _FAR  # 8-bit values read as signed, or a difference of images
    if not certain and not 0 < contrast < _FLAT and not overflown:
        return "", False
    trained = f"{float(np.mean(mean)):.4g} with deviation {float(np.mean(std)):.4g}"
    return (
        f"pixels from {low:.4g} to {high:.4g}, but those of the training data have mean {trained}: "
        f"{'these are' if certain else 'perhaps these are'} other units (8 or 16 bits, fractions, reflectances, or "
        "already normalised)"
    ), certain


def not_normalised(images: np.ndarray, mean: Any, std: Any) -> tuple[str, bool]:
    """Whether images [N, h, w, C] given as normalised by this mean and std per band do not seem to be: no value is
    negative although pixels of 0 would be.

    Returns:
      The evidence and the remedy in words, empty if there is none; and whether it is conclusive, which that of a few
      images is only if their values are the 256 of 8 bits.
    """
    some = _sampled(images)
    if not some.size or not len(mean) or min(np.divide(mean, std)) < 0.5:
        return "", False
    low, high = float(some.min()), float(some.max())
    if low < 0 or low == high:
        return "", False
    are_fractions, several = high <= 1, len(some) >= _SEVERAL
    levels = some.astype(np.float32) * 255
    of_8_bits = bool((abs(levels - levels.round()) < 0.01).all()) and len(np.unique(levels.round())) > _LEVELS
    certain = (several or of_8_bits) if are_fractions else bool(far_from_normalised(some))
    if not (certain or several or are_fractions):
        return "", False
    remedy = "multiply fractions by 255" if 1 < max(mean) <= 255 else "give pixels in the units of the training"
    return (
        f"values from {low:.4g} to {high:.4g}, none negative, {'are' if certain else 'are perhaps'} not normalised: "
        f"normalised means (x - mean) / std of the training, as encoder.normalise gives; {remedy}"
    ), certain


def _sampled(images: np.ndarray) -> np.ndarray:
    return images[:: max(1, len(images) // _SAMPLED)][:_SAMPLED]


def check_finite(images: np.ndarray) -> None:
    """Raises UserError for images [N, ...] with NaN or infinity."""
    for i in range(0, len(images), _LOOKED_AT):
        if not np.isfinite(images[i : i + _LOOKED_AT]).all():
            raise UserError("the images contain NaN or infinity")


def read_images(flag: str, path: str) -> np.ndarray:
    """Images of a .npy file, or of a .npz file with one array. A warning is logged if they do not seem normalised. A
    local .npy file is memory-mapped.

    Args:
      flag: flag that named the file.
      path: path of the file, local or in a bucket.

    Raises:
      UserError: no such file, a damaged one, several arrays, or values that are not floating point.
    """
    where, file = f"--{flag}={path}", epath.Path(path)
    if file.is_dir():
        raise UserError(
            f"{where}: must be a file of arrays, and is a folder; give the images in it as a source, folder:{path}"
        )
    if not file.is_file():
        raise UserError(f"{where}: there is no such file; give one that exists")
    try:
        images = _array(file, where)
    except (OSError, EOFError, KeyError, zlib.error, *DAMAGED_ZIP) as e:
        why = " ".join(str(e).split()) or "it is empty"
        why = next((said for words, said in _SAID.items() if words in why), why)
        raise UserError(f"{where}: cannot be read as .npy: {why}; write it with numpy.save") from e
    if not np.issubdtype(images.dtype, np.floating):
        raise UserError(
            f"{where}: is {images.dtype}; give normalised float images, or the files as --source=folder:DIR, which are "
            "normalised like the training data; in Python, encoder.normalise(pixels) does that"
        )
    if images.ndim and (far := far_from_normalised(images)):
        log.warning(
            f"{where}: images of {far}: if these are pixels, give their files as a source, which is then normalised "
            "like the training data"
        )
    return images


def _array(file: epath.Path, where: str) -> np.ndarray:
    with file.open("rb") as f:
        zipped = f.read(2) == b"PK"
    if not zipped and not in_bucket(file):
        with contextlib.suppress(ValueError):  # an empty array, or not an array: see below
            return np.load(file, mmap_mode="r", allow_pickle=False)
    with file.open("rb") as f:
        loaded = np.load(f, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        if len(loaded.files) != 1:
            names = ", ".join(loaded.files) or "none"
            raise UserError(f"{where}: holds {len(loaded.files)} arrays ({names}); give a file with one, the images")
        array = loaded[loaded.files[0]]
        if not isinstance(array, np.ndarray):
            raise UserError(f"{where}: is an archive without arrays; give one with an array")
        return array


class Rows:
    """A .npy file that grows by blocks of rows of one shape and type.

    Attributes:
      count: rows so far.
    """

    def __init__(self, file: IO[bytes]):
        self._file, self.count = file, 0
        self._shape: tuple[int, ...] | None = None
        self._dtype = np.dtype(np.float32)

    def add(self, block: np.ndarray) -> None:
        """Appends rows [n, ...]."""
        if self._shape is None:
            self._shape, self._dtype = block.shape[1:], block.dtype
            self._file.write(self._header())
        self._file.write(np.ascontiguousarray(block).data)
        self.count += len(block)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, *(self._shape or ()))

    def finish(self) -> None:
        """Writes the number of rows into the header."""
        self._file.seek(0)
        self._file.write(self._header())

    def _header(self) -> bytes:
        # numpy's header has space for any length of the first axis
        text, about = io.BytesIO(), np.lib.format.dtype_to_descr(self._dtype)
        np.lib.format.write_array_header_1_0(text, {"shape": self.shape, "fortran_order": False, "descr": about})
        return text.getvalue()


@contextlib.contextmanager
def written_rows(path: str) -> Iterator[Rows]:
    """A .npy file, local or in a bucket, written under a temporary name and renamed when complete."""
    with whole_file(path) as aside, aside.open("wb") as f:
        rows = Rows(f)
        yield rows
        rows.finish()
