"""Folders that commands wrote, whose figures and maps would be taken for images."""

import json
import os

from etils import epath

from scaling.core.errors import UserError
from scaling.data.sources.arrayrecord import MANIFEST, prepared_splits

_DRAWN = ("figures", "pictures")  # subfolders of a run
_STEP = "_CHECKPOINT_METADATA"  # which orbax writes into every checkpoint
_FIELDS = {"study", "model", "dataset", "metric", "value"}  # of a row of measurements, among others


def is_prepared(folder: epath.PathLike) -> bool:
    """Whether `scaling.prepare` wrote the folder."""
    if not (epath.Path(folder) / MANIFEST).exists():
        return False
    try:
        return bool(prepared_splits(os.fspath(folder)))
    except (UserError, KeyError, AttributeError, TypeError):  # a manifest of something else
        return False


def check_images_folder(where: str, folder: epath.PathLike) -> None:
    """Raises UserError for a folder that a command wrote: a run, a prepared set, a study. Folders of images may have
    files of the same names: several files tell a folder of ours.

    Args:
      where: the flag or field with its value, for the message.
      folder: path of the folder, which exists.
    """
    path = epath.Path(os.path.abspath(folder) if "://" not in os.fspath(folder) else folder)
    if is_prepared(path):
        raise UserError(f"{where}: must be a folder of images, not a prepared set; give it as arrayrecord:{folder}")
    if _is_run(path) or (path.name in _DRAWN and _is_run(path.parent)):
        what = "the working directory of a run"
    elif _is_output(path):
        what = "the output of a command (config.json and rows.jsonl are in it)"
    else:
        return
    raise UserError(f"{where}: must be a folder of images, not {what}; give the folder that holds the images")


def _is_run(folder: epath.Path) -> bool:
    checkpoints = folder / "checkpoints"
    steps = [child for child in checkpoints.iterdir() if child.name.isdecimal()] if checkpoints.is_dir() else []
    if (folder / "config.json").exists() and (steps or (folder / "metrics.jsonl").exists()):
        return True
    return any((step / _STEP).exists() for step in steps)  # of an encoder that was saved


def _is_output(folder: epath.Path) -> bool:
    rows = folder / "rows.jsonl"
    if not (folder / "config.json").exists() or not rows.exists():
        return False
    try:
        with rows.open() as file:
            first = json.loads(file.readline())
    except ValueError:  # of something else
        return False
    return isinstance(first, dict) and first.keys() >= _FIELDS
