"""Recognises, by its first bytes, a file that was given as weights but is not one."""

import zipfile
from pathlib import Path

from scaling.core.errors import UserError
from scaling.core.files import DAMAGED_ZIP

WANTED = "weights are a .safetensors file, or what torch.save wrote since version 1.6"

# beginning of a file: its format, and the remedy
_BEGINNINGS: dict[bytes, tuple[str, str]] = {
    b"version https://git-lfs": ("a Git LFS pointer, not the file that it stands for", "fetch that with git lfs pull"),
    b"<!doctype": ("a web page", "the download did not give the file: log in or accept its licence, then try again"),
    b"<html": ("a web page", "the download did not give the file: log in or accept its licence, then try again"),
    b"<!--": ("a web page", "the download did not give the file: log in or accept its licence, then try again"),
    b"<?xml": ("an XML answer of a server", "the download did not give the file"),
    b"\x89HDF": ("an HDF5 file of Keras", WANTED),
    b"\x93NUMPY": ("a NumPy array without a name", WANTED),
    b"GGUF": ("a GGUF file, quantised for language models", WANTED),
    b"\x1f\x8b": ("compressed by gzip", "unpack it"),
    b"BZh": ("compressed by bzip2", "unpack it"),
    b"\xfd7zXZ": ("compressed by xz", "unpack it"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "unpack it"),
}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\f\r\x1b")) + b"\x7f"  # characters that text does not contain
_PICKLE = ("a pickle, or saved by a torch before 1.6", "load it there and save it again with torch.save")
_BEGINNINGS |= {bytes([0x80, protocol]): _PICKLE for protocol in range(2, 6)}


def check_file(path: Path) -> None:
    """Raises UserError for a path that is not a file, an empty file, and a file that begins like another format."""
    if path.is_dir():
        inside = sorted(x.name for x in path.iterdir() if x.name.endswith((*_ENDINGS, ".index.json")))
        which = f"; give one of its files, there is {', '.join(inside[:4])}" if inside else f"; {WANTED}"
        raise UserError(f"{path}: must be a file of weights, and is a folder{which}")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file of weights; give one that exists")
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise UserError(f"{path}: must be a file of weights, and is empty; fetch it again")
    if is_safetensors(start):  # it begins with a length, whose bytes can look like any format
        return
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()  # without a byte-order mark
    what = next((v for k, v in _BEGINNINGS.items() if text[: len(k)].lower() == k.lower()), None)
    if start[257:262] == b"ustar":
        what = "a tar archive, or saved by a torch before 1.0", "unpack it, or load it there and save it again"
    if path.suffix == ".onnx" or (start[:1] == b"\x08" and b"pytorch" in start[:32]):
        what = "an ONNX program", WANTED
    if not what and not start.lstrip().startswith(b"{"):  # JSON may be an index of several files
        what = _text(text)
    if what:
        raise UserError(f"{path}: must be a file of weights, and is {what[0]}; {what[1]}")


def _text(start: bytes) -> tuple[str, str] | None:
    """The format of a text file, by its beginning without a byte-order mark; None for a binary one."""
    if not start.startswith(_UTF16) and start.translate(None, _CONTROLS) != start:
        return None
    kind = {b"[": "a JSON list", b"{": "JSON with a byte-order mark"}.get(start[:1], "plain text")
    return f"{kind}, and no weights", WANTED


def is_safetensors(start: bytes) -> bool:
    """Whether a file is safetensors, by its first nine bytes: the length of a header below 2^40, and the header."""
    return start[5:9] == b"\0\0\0{"


def check_archive(path: Path, names: list[str]) -> None:
    """Raises UserError for a zip archive that torch.save did not write, by the names of its entries."""
    pickled = any(name == "data.pkl" or name.endswith("/data.pkl") for name in names)
    if pickled and not any("/code/" in f"/{name}" for name in names):
        return
    if pickled:
        what = "a TorchScript program; save its state_dict with torch.save"
    elif names and all(name.endswith(".npy") for name in names):
        what = f"a NumPy archive (.npz); {WANTED}"
    elif any(name.endswith(".weights.h5") for name in names):
        what = f"a Keras archive; {WANTED}"
    else:
        what = f"a zip archive without data.pkl, no torch file; {WANTED}"
    raise UserError(f"{path}: must be a file of weights, and is {what}")


def entries(path: Path) -> list[str]:
    """Names of the entries of a zip archive.

    Raises:
      UserError: the archive is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (*DAMAGED_ZIP, OSError) as e:
        raise UserError(
            f"{path}: is not a zip archive: truncated, or saved by a torch before 1.6 ({e}); fetch or save it again"
        ) from e


_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
