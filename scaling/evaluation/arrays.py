"""Images and features in files of numpy: read where they lie, written block by block."""

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np
from etils import epath

from scaling.errors import UserError
from scaling.paths import whole_file

# What numpy says -> what it means.
_SAID = {
    "Object arrays": "it holds Python objects, not numbers",
    "pickled": "it is no array of numbers",
    "No data left": "it is empty",
}

ENDINGS = (".npy", ".npz")


def read_images(flag: str, path: str) -> np.ndarray:
    """Normalised images of a file, .npy, or .npz with one array. A local .npy is mapped, not read.

    Args:
      flag: that it was given with.
      path: of the file; a bucket too.

    Raises:
      UserError: no such file, a damaged one, several arrays, or what is not numbers with a fraction.
    """
    where, file = f"--{flag}={path}", epath.Path(path)
    if not file.is_file():
        raise UserError(f"{where} cannot be read as .npy: there is no such file")
    try:
        images = _array(file, where)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as e:
        why = " ".join(str(e).split()) or "it is empty"
        why = next((said for words, said in _SAID.items() if words in why), why)
        raise UserError(f"{where} cannot be read as .npy: {why}") from e
    if not np.issubdtype(images.dtype, np.floating):
        raise UserError(f"{where} is {images.dtype}; give normalised float images, or the files as --source")
    return images


def _array(file: epath.Path, where: str) -> np.ndarray:
    with file.open("rb") as f:
        zipped = f.read(2) == b"PK"
    if not zipped and "://" not in str(file):
        with contextlib.suppress(ValueError):  # of an array without elements, and what is no array at all: see below
            return np.load(file, mmap_mode="r", allow_pickle=False)
    with file.open("rb") as f:
        loaded = np.load(f, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        if len(loaded.files) != 1:
            names = ", ".join(loaded.files) or "none"
            raise UserError(f"{where} holds {len(loaded.files)} arrays ({names}); give a file with one, the images")
        array = loaded[loaded.files[0]]
        if not isinstance(array, np.ndarray):
            raise UserError(f"{where} is an archive of something else than arrays")
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
        """Writes how many rows there are."""
        self._file.seek(0)
        self._file.write(self._header())

    def _header(self) -> bytes:
        # numpy leaves room in it for any length of the first axis
        text, about = io.BytesIO(), np.lib.format.dtype_to_descr(self._dtype)
        np.lib.format.write_array_header_1_0(text, {"shape": self.shape, "fortran_order": False, "descr": about})
        return text.getvalue()


@contextlib.contextmanager
def written_rows(path: str) -> Iterator[Rows]:
    """A .npy file, written aside and named when it is whole; here or in a bucket."""
    with whole_file(path) as aside, aside.open("wb") as f:
        rows = Rows(f)
        yield rows
        rows.finish()
