"""The split and the class of an image file, derived from its folders."""

import logging
import os
import re
from collections.abc import Iterable, Sequence

import numpy as np

from scaling.core.errors import UserError
from scaling.data.images import ARRAY, SUFFIXES
from scaling.data.sources.slices import no_split

# Folders with these names are splits if all folders beside them are too, else classes.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}

_Path = tuple[str, ...]
_CONTROL = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")  # including all characters that end a line


def shown(name: str) -> str:
    r"""A file name as one line of text: bytes that are not UTF-8, and line ends, are escaped, `gr\xfcn.jpg`."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


class Listing:
    """Names and labels of the images of one split, a few dozen bytes per image.

    The top folders are the splits if all of them are named as splits; one folder around everything does not count. The
    class is the folder an image lies in. Where two folders in different places have the same name, the class is the
    path; where all of a split have it (`train/CLASS/images`), the class is the folder above. A split whose only folder
    is not a class of the others (`test/images`) has no labels.

    Args:
      groups: (folder relative to the root, image names in it), one pair per folder.
      split: top folders to take; without split folders only `train` exists.
      root: name of the whole in messages.

    Attributes:
      split: the top folders taken, in one spelling.
      class_names: classes of all splits, in alphabetical order.

    Raises:
      UserError: no images, no such split, or folders named as splits beside others.
    """

    def __init__(self, groups: Iterable[tuple[str, list[str]]], split: str, root: str):
        everything = sorted((folder, sorted(names)) for folder, names in groups if names)
        if not everything:
            raise UserError(f"{root}: no images ({', '.join((*SUFFIXES, ARRAY))})")
        paths = [tuple(folder.split("/")) if folder else () for folder, _ in everything]
        depth = _depth(paths)
        splits = _splits(paths, depth, root)
        self.split = wanted = SPLIT_NAMES.get(split.lower(), split)
        there = sorted(set(splits) - {""})
        if wanted not in (there or ["train"]):
            raise no_split(root, split, there or ["train"], "" if there else "only ")
        if there and (outside := [names[0] for (_, names), s in zip(everything, splits, strict=True) if not s]):
            logging.warning(
                "%s: images beside the folders of the splits are left out, first %s", root, shown(outside[0])
            )
        # Classes are counted over all splits, so that a label means the same in each of them.
        classes = _classes([_below(path, depth, bool(there)) for path in paths], splits)
        self.class_names = tuple(shown(name) for name in sorted(set(classes) - {""}))
        labels = {"": -1} | {name: label for label, name in enumerate(sorted(set(classes) - {""}))}
        mine = [i for i, found in enumerate(splits) if not there or found == wanted]
        self.folders = [everything[i][0] for i in mine]
        self._labels = np.array([labels[classes[i]] for i in mine], np.int32)
        self._folder_of = np.repeat(np.arange(len(mine), dtype=np.int32), [len(everything[i][1]) for i in mine])
        self._names = np.array([os.fsencode(name) for i in mine for name in everything[i][1]])

    def __len__(self) -> int:
        return len(self._names)

    def path(self, index: int) -> str:
        """Path of the file relative to the root, as the file system spells it."""
        folder = self.folders[self._folder_of[index]]
        file = os.fsdecode(bytes(self._names[index]))
        return f"{folder}/{file}" if folder else file

    def name(self, index: int) -> str:
        """The path relative to the root, as text."""
        return shown(self.path(index))

    @property
    def labels(self) -> np.ndarray:
        """Label of every image, int32; -1 if it has none."""
        return self._labels[self._folder_of]

    def label(self, index: int) -> int:
        return int(self._labels[self._folder_of[index]])


def _depth(paths: Sequence[_Path]) -> int:
    """Number of folders that enclose all others."""
    depth = 0
    while len(tops := {path[depth] for path in paths if len(path) > depth}) == 1 and not _named_as_splits(tops):
        depth += 1
    return depth


def _named_as_splits(names: Iterable[str]) -> set[str]:
    return {name for name in names if name.lower() in SPLIT_NAMES}


def _splits(paths: Sequence[_Path], depth: int, root: str) -> list[str]:
    """The split of every folder; '' for all folders if there are no splits, and for folders above the splits."""
    tops = {path[depth] for path in paths if len(path) > depth}
    named = _named_as_splits(tops)
    if not named:
        deeper = {SPLIT_NAMES[name.lower()]: name for path in paths for name in _named_as_splits(path[depth:])}
        if len(deeper) > 1:
            there = ", ".join(sorted(deeper.values()))
            logging.warning(
                "%s: folders named %s are below other folders and are read as classes, not splits", root, there
            )
        return [""] * len(paths)
    if others := sorted(tops - named):
        if len(named) == 1 and not any(len(path) > depth + 1 and path[depth] in named for path in paths):
            return [""] * len(paths)  # a class, as in airplane, ship, train
        raise UserError(
            f"{root}: {', '.join(sorted(named))} look like splits, and the images in {shown(others[0])} beside them "
            "would be left out; move that folder away, or rename a class that has the name of a split"
        )
    return [SPLIT_NAMES[path[depth].lower()] if len(path) > depth else "" for path in paths]


def _below(path: _Path, depth: int, in_splits: bool) -> _Path:
    """The part of a path that can name a class."""
    return path[depth + 1 :] if in_splits else path[min(depth, max(len(path) - 1, 0)) :]


def _classes(paths: Sequence[_Path], splits: Sequence[str]) -> list[str]:
    """The class of every folder, from its path below the split; '' if it has none."""
    paths = _without_lone_folders(paths, splits)
    while len({path for path in paths if path}) > 1 and len({path[-1] for path in paths if path}) == 1:
        paths = [path[:-1] for path in paths]
    paths = _without_lone_folders(_without_inner_folders(paths, splits), splits)
    places: dict[tuple[str, str], set[_Path]] = {}
    for path, split in zip(paths, splits, strict=True):
        if path:
            places.setdefault((split, path[-1]), set()).add(path)
    repeated = {leaf for (_, leaf), found in places.items() if len(found) > 1}
    return ["/".join(path) if path and path[-1] in repeated else "".join(path[-1:]) for path in paths]


def _of_splits(paths: Sequence[_Path], splits: Sequence[str]) -> dict[str, set[_Path]]:
    """The folders of every split, but for the split itself."""
    found: dict[str, set[_Path]] = {split: set() for split in splits}
    for path, split in zip(paths, splits, strict=True):
        if path:
            found[split].add(path)
    return found


def _without_lone_folders(paths: Sequence[_Path], splits: Sequence[str]) -> list[_Path]:
    """Paths, empty in a split of a single folder that is not a class: `test/test` of Million-AID, `test/images`."""
    of_splits = _of_splits(paths, splits)
    unlabelled = set()
    for split, mine in of_splits.items():
        others = {path for other, theirs in of_splits.items() if other != split for path in theirs}
        if split and len(mine) == 1 and not {name for path in others for name in path} & set(*mine):
            names = next(iter(mine))
            if len(others) > 1 or (len(names) == 1 and _named_as_splits(names)):
                unlabelled.add(split)
    return [() if split in unlabelled else path for path, split in zip(paths, splits, strict=True)]


def _without_inner_folders(paths: Sequence[_Path], splits: Sequence[str]) -> list[_Path]:
    """Paths without the folder that one split has in every class and another has not: `train/n01/images`, `val/n01`."""
    of_splits = {split: found for split, found in _of_splits(paths, splits).items() if len(found) > 1}
    shorter = set()
    for split, mine in of_splits.items():
        theirs = {path[-1] for other, found in of_splits.items() if other != split for path in found}
        inner = {path[-1] for path in mine}
        if len(inner) == 1 and not inner & theirs and {path[-2] for path in mine if len(path) > 1} & theirs:
            shorter.add(split)
    return [path[:-1] if split in shorter else path for path, split in zip(paths, splits, strict=True)]
