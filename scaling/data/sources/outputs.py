"""Folders that commands wrote, whose figures and maps would be taken for images."""

import os

from etils import epath

from scaling.core.errors import UserError
from scaling.data.sources.arrayrecord import MANIFEST, prepared_splits

_ROWS = ("metrics.jsonl", "rows.jsonl", "run.json", "predictions.csv")
_DRAWN = ("figures", "pictures")  # subfolders of what a command wrote


def is_prepared(folder: epath.PathLike) -> bool:
    """Whether `scaling.prepare` wrote the folder."""
    if not (epath.Path(folder) / MANIFEST).exists():
        return False
    try:
        return bool(prepared_splits(os.fspath(folder)))
    except (UserError, KeyError, AttributeError, TypeError):  # a manifest of something else
        return False


def check_images_folder(where: str, folder: epath.PathLike) -> None:
    """Raises UserError for a folder that a command wrote: a run, a prepared set, a study.

    Args:
      where: the flag or field with its value, for the message.
      folder: path of the folder, which exists.
    """
    path = epath.Path(os.path.abspath(folder) if "://" not in os.fspath(folder) else folder)
    if is_prepared(path):
        raise UserError(f"{where}: must be a folder of images, not a prepared set; give it as arrayrecord:{folder}")
    for place in (path, path.parent) if path.name in _DRAWN else (path,):
        if what := _written(place):
            raise UserError(f"{where}: must be a folder of images, not {what}; give the folder that holds the images")


def _written(folder: epath.Path) -> str:
    """What a command wrote into the folder, in words; empty if none did."""
    checkpoints = folder / "checkpoints"
    if checkpoints.is_dir() and any(child.name.isdecimal() for child in checkpoints.iterdir()):
        return "the working directory of a run"
    found = next((name for name in _ROWS if (folder / name).exists()), "")
    return found and f"the output of a command ({found} is in it)"
