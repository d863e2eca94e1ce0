"""DOTA (Xia et al. 2018, Ding et al. 2021) as it is downloaded, and other sets with texts like its own.

{train,val}/images/P0001.png             pictures of any size
{train,val}/labelTxt/P0001.txt           see `scaling.data.dota_text`; or labelTxt-v1.5, labelTxt-v2.0
images/, labelTxt/                       without folders of splits all of it is `train`
train.zip, test.zip                      or each split as an archive of `images/` and `labelTxt/`

`dota:DIR?tile=1024` are its tiles as mmrotate cuts them, to be prepared for training; see `scaling.data.tiling`.
"""

from collections.abc import Sequence

from etils import epath

from scaling.core.errors import UserError
from scaling.data.box_classes import DOTA_CLASSES
from scaling.data.dota_text import Objects, parse_objects
from scaling.data.images import CorruptImage
from scaling.data.sources.base import Source
from scaling.data.sources.files import is_image
from scaling.data.sources.listing import SPLIT_NAMES
from scaling.data.sources.objects import Unlabelled, object_images
from scaling.data.sources.pairs import Files, FolderFiles, ZipFiles
from scaling.data.sources.slices import no_split
from scaling.data.sources.tables import text_of_table
from scaling.data.sources.tiles import Tiles
from scaling.data.tiling import Tiling

LABELS = {version: (f"labelTxt-v{version}", "labelTxt") for version in DOTA_CLASSES}


def open_dota(
    path: str,
    split: str,
    version: str = "2.0",
    classes: str = "",
    most: str = "",
    tile: str = "",
    gap: str = "200",
    rates: str = "1",
) -> Source:
    """Opens one split.

    Args:
      path: the folder with the splits, or with `images` and `labelTxt`.
      split: `train`, `validation` (or `val`) or `test`, whose labels are not public: its images have no boxes.
      version: 1.0, 1.5 or 2.0, which have different classes.
      classes: comma-separated classes of a data set other than DOTA.
      most: largest number of objects per image in a batch.
      tile: side in pixels of the tiles that images are cut into, such as 1024; by default images stay whole. Each tile
        reads its whole image: prepare the tiles for training with `scaling.prepare`.
      gap: pixels that neighbouring tiles share.
      rates: comma-separated scales at which images are tiled, such as 0.5,1,1.5.

    Raises:
      UserError: a folder, split or half of a pair is missing; an option has an unknown value; a line cannot be read; a
        class is unknown.
    """
    spec, root = f"dota:{path}", epath.Path(path)
    if version not in DOTA_CLASSES:
        raise UserError(f"{spec}: version={version}: must be one of {', '.join(DOTA_CLASSES)}")
    names = tuple(classes.split(",")) if classes else DOTA_CLASSES[version]
    if "" in names or len(set(names)) < len(names):
        raise UserError(f"{spec}: classes={classes}: every class needs a different name")
    if not path or not root.is_dir():
        raise UserError(f"{spec}: no such folder; give one that exists")
    images, objects = _split(spec, root, split, version)
    if not images.names:
        raise UserError(f"{spec}: no images there of {split}")
    if objects is None:
        return Unlabelled(images)
    whole = object_images(spec, images, objects, names, most, kind="labelTxt")
    return Tiles(whole, _tiling(spec, tile, gap, rates)) if tile else whole


def _tiling(spec: str, tile: str, gap: str, rates: str) -> Tiling:
    try:
        return Tiling(int(tile), int(gap), tuple(map(float, rates.split(","))))
    except ValueError as e:
        raise UserError(
            f"{spec}: tile={tile}, gap={gap}, rates={rates}: must be numbers, such as 1024, 200 and 0.5,1"
        ) from e
    except UserError as e:
        raise UserError(f"{spec}: {e}") from e


def _split(spec: str, root: epath.Path, split: str, version: str) -> tuple[Files, dict[str, Objects] | None]:
    wanted = SPLIT_NAMES.get(split.lower(), split)
    there = {SPLIT_NAMES[child.stem.lower()]: child for child in root.iterdir() if _is_split(child)}
    if not there and (root / "images").is_dir():
        there = {"train": root}
    if not there:
        raise UserError(f"{spec}: no images/ there, no folders train, val or test, and no train.zip")
    if wanted not in there:
        raise no_split(spec, split, sorted(there))
    if there[wanted].suffix == ".zip":
        return _archive(there[wanted])
    labelled = _folder(there[wanted], version)
    if labelled[1] is None and wanted != "test":
        raise UserError(f"{spec}: no folder labelTxt in {there[wanted]}; unpack the labels into it")
    return labelled


def _is_split(path: epath.Path) -> bool:
    inside = path.suffix == ".zip" if path.suffix else (path / "images").is_dir()
    return path.stem.lower() in SPLIT_NAMES and inside


def _folder(root: epath.Path, version: str) -> tuple[Files, dict[str, Objects] | None]:
    labels = next((root / name for name in LABELS[version] if (root / name).is_dir()), None)
    images = FolderFiles(str(root / "images"), is_image)
    if labels is None:
        return images, None
    texts = FolderFiles(str(labels), _is_text)
    return images, _parsed([(name, f"{labels}/{name}", texts.read(name)) for name in texts.names])


def _archive(file: epath.Path) -> tuple[Files, dict[str, Objects]]:
    labels = ZipFiles(str(file), lambda name: "labelTxt" in name and _is_text(name))
    try:
        texts = [(name, f"{file}/{name}", labels.read(name)) for name in labels.names]
    except CorruptImage as e:
        raise UserError(f"{e}; fetch the archive again") from e
    return ZipFiles(str(file)), _parsed(texts)


def _is_text(name: str) -> bool:
    return name.lower().endswith(".txt") and not name.rpartition("/")[2].startswith(".")


def _parsed(texts: Sequence[tuple[str, str, bytes]]) -> dict[str, Objects]:
    return {
        name.rpartition("/")[2].rpartition(".")[0]: parse_objects(text_of_table(data), where)
        for name, where, data in texts
    }
