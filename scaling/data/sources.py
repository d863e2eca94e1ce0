"""Where images come from: random-access sources, and the specs that name them.

    arrayrecord:DIR    what `scaling.prepare` writes
    folder:DIR         image files, the leaf folder is the class
    zip:FILE           image files in an archive, with `labels.csv` beside it where there is one, or `?labels=TABLE`
    tfds:NAME          a prepared TensorFlow data set, `tfds:eurosat/rgb`
    scenes[:VARIANT]   rendered here, `scenes` (colours) or `scenes:ms` (reflectances)
    geobench:DIR       the folder of a GEO-Bench set, `geobench:classification_v1.0/m-eurosat`

Options follow as in an address: `scenes?size=128&count=1000`, `tfds:eurosat/all?data_dir=DIR`,
`geobench:DIR?bands=B04,B03,B02&partition=0.01x`. A split may be a part of one: `train[:80%]` and `train[80%:]`.
"""

import inspect
import urllib.parse
from collections.abc import Callable

from scaling.data.slices import Slice, split_name
from scaling.data.source import Source
from scaling.errors import UserError


def open_source(spec: str, split: str = "train") -> Source:
    """Opens the source a spec names.

    Args:
      spec: `scheme[:path][?option=value&…]`, see the top of this module.
      split: which part of it.

    Raises:
      UserError: unknown scheme, option or split, missing or empty path; the message lists what there is.
    """
    address, _, query = spec.partition("?")
    scheme, _, path = address.partition(":")
    if scheme not in SCHEMES:
        hint = f"; a folder is written folder:{spec}" if "/" in scheme else ""
        raise UserError(f"unknown source {spec!r}; it starts with one of: {', '.join(SCHEMES)}{hint}")
    opener = SCHEMES[scheme]
    known = list(inspect.signature(opener).parameters)[2:]
    options = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    for option in options:
        if option not in known:
            raise UserError(f"{spec}: unknown option {option!r}; {scheme} takes {', '.join(known) or 'none'}")
    whole = split if scheme == "tfds" else split_name(split)  # that library cuts its splits itself
    source = opener(path, whole, **options)
    return source if whole == split else Slice(source, split)


def _arrayrecord(path: str, split: str) -> Source:
    from scaling.data.records import ArrayRecords

    return ArrayRecords(path, split)


def _folder(path: str, split: str) -> Source:
    from scaling.data.files import Folder

    return Folder(path, split)


def _zip(path: str, split: str, labels: str = "") -> Source:
    from scaling.data.files import Zip

    return Zip(path, split, labels)


def _tfds(path: str, split: str, data_dir: str | None = None) -> Source:
    from scaling.data.tfds import Tfds  # imported here: slow, and needed by this scheme only

    return Tfds(path, split, data_dir)


def _scenes(path: str, split: str, size: str = "64", count: str = "", seed: str = "0") -> Source:
    from scaling.data.scenes import Scenes

    for name, value in (("size", size), ("count", count or "0"), ("seed", seed)):
        if not value.isdecimal():
            raise UserError(f"scenes: {name}={value} is not a whole number")
    return Scenes(
        split=split, variant=path or "rgb", size=int(size), count=int(count) if count else None, seed=int(seed)
    )


def _geobench(
    path: str, split: str, bands: str = "", partition: str = "default", names: str = "corrected", scale: str = "1"
) -> Source:
    from scaling.data.geobench import GeoBench

    return GeoBench(path, split, bands, partition, names, scale)


SCHEMES: dict[str, Callable[..., Source]] = {
    "arrayrecord": _arrayrecord,
    "folder": _folder,
    "zip": _zip,
    "tfds": _tfds,
    "scenes": _scenes,
    "geobench": _geobench,
}
