"""Random-access sources of images, and the specs that name them.

    arrayrecord:DIR    a folder that `scaling.prepare` wrote
    folder:DIR         image files (JPEG, PNG, TIFF, JPEG 2000, WebP, BMP, .npy), the leaf folder is the class
    zip:FILE           image files in an archive, with `labels.csv` beside it where there is one, or `?labels=TABLE`
    tfds:NAME          a prepared TensorFlow data set, `tfds:eurosat/rgb`
    scenes[:VARIANT]   rendered here, `scenes` (colours) or `scenes:ms` (reflectances); with `?targets=mask` the cover
                       of every pixel too, with `?targets=boxes` other scenes, of objects with oriented boxes
    geobench:DIR       the folder of a GEO-Bench set, `geobench:classification_v1.0/m-eurosat`, or one of segmentation
    pairs:DIR          `images/` and `masks/`, or `images.zip` and `masks.zip`; see `scaling.data.sources.pairs`
    loveda:DIR         LoveDA as it is downloaded, the folder of `Train`, `Val` and `Test`
    potsdam:DIR        ISPRS Potsdam as it is downloaded, the folder of `2_Ortho_RGB` and `5_Labels_all`; to be
                       prepared for training as clips, `potsdam:DIR?clip=512`
    oscd:DIR           OSCD (changes between two dates) as it is downloaded, the folder of its three folders
    dota:DIR           DOTA as it is downloaded, or `images/` and `labelTxt/` like its own, `dota:ssdd?classes=ship`;
                       see `scaling.data.sources.dota`
    dior:DIR           DIOR-R as it is downloaded, the folder of `Annotations`, `ImageSets` and `JPEGImages-trainval`
    yolo_obb:DIR       `images/` and `labels/` of the YOLO programs' oriented boxes

The path of a folder alone stands for folder:DIR, or for arrayrecord:DIR where `scaling.prepare` wrote it; the path of
an archive for zip:FILE. Options follow as in an address: `scenes?size=128&count=1000`, `tfds:eurosat/all?data_dir=DIR`,
`geobench:DIR?bands=B04,B03,B02&partition=0.01x`. `~` in a path is the home. A split may be a part of one,
`train[:80%]` and `train[80%:]`, or of every class, `train[:80%,stratified]` and `train[80%:,stratified]`; several as
one, `train+test`, or both: `train[:80%]+test`, `(train+test)[:1000]`. For `tfds`, that library cuts and joins splits,
in its own order, except in parentheses.
"""

import difflib
import inspect
import os
import urllib.parse
from collections.abc import Callable
from typing import Any

from scaling.core.errors import UserError
from scaling.core.hub import fetch, in_hub
from scaling.data.sources.base import Source
from scaling.data.sources.outputs import is_prepared
from scaling.data.sources.slices import STRATIFIED, Slice, is_stratified, sliced, terms
from scaling.data.sources.stratified import Stratified
from scaling.data.sources.united import United


def open_source(spec: str, split: str = "train") -> Source:
    """Opens the source a spec names.

    Args:
      spec: `scheme[:path][?option=value&…]` or a path, see the top of this module.
      split: split of the source.

    Raises:
      UserError: unknown scheme, option or split, missing or empty path; the message lists the known ones.
    """
    scheme, path, options = parsed(spec)
    if scheme not in SCHEMES:
        raise UserError(f"unknown source {spec!r}; {_hint(spec.partition('?')[0], scheme)}")
    opener = SCHEMES[scheme]()
    known = list(inspect.signature(opener).parameters)[2:]
    for option in options:
        if option not in known:
            raise UserError(f"{spec}: unknown option {option!r}; {scheme} takes {', '.join(known) or 'none'}")
    if any("://" in place and not place.startswith("gs://") for place in (path, *options.values())):
        raise UserError(f"{spec}: only local paths and gs:// can be read, and hf://; copy the images to one of them")
    return _opened(lambda name: opener(path, name, **options), split, _KNOWN.get(scheme, _none), path)


def parsed(spec: str) -> tuple[str, str, dict[str, str]]:
    """Scheme, path and options of a spec. `~` is expanded in all paths; a `?` that is part of the name of an existing
    local file or folder does not begin options.
    """
    spec = _with_scheme(spec)
    address, _, query = spec.partition("?")
    for end in (i for i in range(len(spec), len(address), -1) if spec[i : i + 1] in ("?", "")):
        scheme, _, path = spec[:end].partition(":")
        if scheme in _OF_PATHS and os.path.exists(os.path.expanduser(path)):
            address, query = spec[:end], spec[end + 1 :]
            break
    scheme, _, path = address.partition(":")
    options = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    path = _local(path) if scheme in _OF_PATHS else path
    return scheme, path, {name: _local(x) if name in _PATHS else x for name, x in options.items()}


def _with_scheme(spec: str) -> str:
    """The spec of a folder or archive that is given by its path, which options may follow; any other spec is returned
    as it is.
    """
    scheme, colon, _ = spec.partition(":")
    if spec.partition("?")[0] in SCHEMES or (colon and scheme in SCHEMES):
        return spec
    options = "?" in spec and not os.path.exists(os.path.expanduser(spec))
    path = os.path.expanduser(spec.rpartition("?")[0] if options else spec)
    if scheme == "gs" or os.path.isdir(path):
        return f"{'arrayrecord' if is_prepared(path) else 'folder'}:{spec}"
    return f"zip:{spec}" if path.lower().endswith(".zip") and os.path.isfile(path) else spec


def stored_spec(spec: str) -> str:
    """The spec as it is stored, so that a set has one identity: a local path gets its scheme, as by `parsed`. A path in
    a bucket stays as it is: a configuration is read without the network.
    """
    return spec if spec.startswith("gs://") else _with_scheme(spec)


def store_specs(config: Any, *fields: str) -> None:
    """Replaces these fields of a frozen dataclass by their `stored_spec`."""
    for field in fields:
        object.__setattr__(config, field, stored_spec(getattr(config, field)))


def same_source(one: str, other: str) -> bool:
    """Whether two specs name the same images, however their paths are written."""
    (scheme, path, options), (its_scheme, its_path, its_options) = parsed(one), parsed(other)
    alike = (scheme, options) == (its_scheme, its_options)
    return alike and (path == its_path or os.path.realpath(path) == os.path.realpath(its_path))


def _local(path: str) -> str:
    """A path with `~` expanded, or the local copy of a path in the hub."""
    return str(fetch(path)) if in_hub(path) else os.path.expanduser(path)


def limited_split(spec: str, split: str, limit: int) -> str:
    """The first `limit` images of a split in the order of evaluation, as another split; 0 for all."""
    if not limit or limit > len(open_source(spec, split)):
        return split
    plain = not spec.startswith("tfds:") and len(terms(split)) == 1 and not sliced(split)
    return f"{split}[:{limit}]" if plain else f"({split})[:{limit}]"


def _hint(address: str, scheme: str) -> str:
    known = f"it starts with one of: {', '.join(SCHEMES)}"
    if "://" in address and scheme != "gs":
        return f"{known}; only local paths and gs:// can be read"
    if address.lower().endswith(".zip"):
        return f"{known}; an archive is written zip:{address}"
    if os.path.isfile(os.path.expanduser(address)):
        return f"{known}; a single file is no source: give its folder, folder:{os.path.dirname(address) or '.'}"
    if near := difflib.get_close_matches(scheme, SCHEMES, n=1):
        return f"{known}; did you mean {near[0]}?"
    return f"{known}; a folder is written folder:{address}"


def _opened(opener: Callable[[str], Source], split: str, knows: Callable[[str, str], bool], path: str) -> Source:
    """A split, which may be a union or a slice; `opener` opens the splits that the source knows by name."""
    if knows(path, split):
        return opener(split)
    parts = terms(split)
    if len(parts) > 1:
        return United([_opened(opener, part, knows, path) for part in parts], parts)
    whole = sliced(split)
    if not whole:
        return opener(split)
    part = Stratified if is_stratified(split) else Slice
    return part(_opened(opener, whole, knows, path), split)


def _none(path: str, split: str) -> bool:
    return False


def _prepared(path: str, split: str) -> bool:
    """Whether a prepared folder has a split of that very name, because it was prepared as a slice or a union."""
    from scaling.data.sources.arrayrecord import prepared_splits

    return split in prepared_splits(path)


# Sources that may know a name that would otherwise be parsed here.
_KNOWN: dict[str, Callable[[str, str], bool]] = {
    "arrayrecord": _prepared,
    "tfds": lambda path, split: "(" not in split and STRATIFIED not in split,
}


# Openers by scheme, called with a path, a split and options; imported on use, since some are slow.
Opener = Callable[..., Source]


def _arrayrecord() -> Opener:
    from scaling.data.sources.arrayrecord import ArrayRecords

    return ArrayRecords


def _folder() -> Opener:
    from scaling.data.sources.files import Folder

    return Folder


def _zip() -> Opener:
    from scaling.data.sources.archives import Zip

    return Zip


def _tfds() -> Opener:
    from scaling.data.sources.tfds import Tfds

    return Tfds


def _scenes() -> Opener:
    from scaling.data.scenes.source import open_scenes

    return open_scenes


def _geobench() -> Opener:
    from scaling.data.sources.geobench import GeoBench

    return GeoBench


def _pairs() -> Opener:
    from scaling.data.sources.pairs import open_pairs

    return open_pairs


def _loveda() -> Opener:
    from scaling.data.sources.loveda import open_loveda

    return open_loveda


def _potsdam() -> Opener:
    from scaling.data.sources.potsdam import open_potsdam

    return open_potsdam


def _oscd() -> Opener:
    from scaling.data.sources.oscd import Oscd

    return Oscd


def _dota() -> Opener:
    from scaling.data.sources.dota import open_dota

    return open_dota


def _dior() -> Opener:
    from scaling.data.sources.dior import open_dior

    return open_dior


def _yolo_obb() -> Opener:
    from scaling.data.sources.yolo_obb import open_yolo_obb

    return open_yolo_obb


_OF_PATHS = (  # schemes whose path is a file or folder
    *("arrayrecord", "folder", "zip", "geobench", "pairs", "loveda", "potsdam", "oscd"),
    *("dota", "dior", "yolo_obb"),
)
_PATHS = ("labels", "data_dir")  # options that are paths
SCHEMES: dict[str, Callable[[], Opener]] = {
    "arrayrecord": _arrayrecord,
    "folder": _folder,
    "zip": _zip,
    "tfds": _tfds,
    "scenes": _scenes,
    "geobench": _geobench,
    "pairs": _pairs,
    "loveda": _loveda,
    "potsdam": _potsdam,
    "oscd": _oscd,
    "dota": _dota,
    "dior": _dior,
    "yolo_obb": _yolo_obb,
}
