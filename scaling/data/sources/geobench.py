"""GEO-Bench v1.0 (Lacoste et al. 2023, ServiceNow/geo-bench): the folder of one data set as distributed.

    <sample>.hdf5             one dataset per band, named by the band; the pickled attribute is never read. In a set of
                              segmentation the dataset `label` beside them: a class for every pixel
    <name>_partition.json     {"train": [samples], "valid": …, "test": …}; default, 0.01x_train, 0.02x_train …
    label_map.json            {class: [samples]}, one label per sample
    label_stats.json          {sample: [0 or 1 per label]}, several labels per sample
    band_stats.json           {band: {"mean": …, "std": …, …}} over a part of the default training split, optional

The set is known by the name of its folder. Two sets name their bands wrongly, see `CORRECTED` in
`scaling.data.sources.geobench_names`.
"""

import io
import math
import re
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.core.files import parse_json
from scaling.data.declared import check_declared
from scaling.data.images import CorruptImage
from scaling.data.masks import without_zero
from scaling.data.sources.base import Info, Statistics, Stored
from scaling.data.sources.geobench_names import CLASS_NAMES, CORRECTED, MASK_CLASSES, SENTINEL2, SETS
from scaling.data.targets import Masks

_SPLITS = {"train": "train", "valid": "valid", "validation": "valid", "test": "test"}
_NAMES = ("corrected", "stored")
_IGNORE = 255
_DATE = re.compile(r"_\d{4}-\d{2}-\d{2}.*")  # a dated band is stored as `02 - Blue_2018-05-01`


class GeoBench(Stored):
    """One split of one data set.

    Bands are called B01 … B12 where they are Sentinel-2's, else as they are stored. Every image is an array
    [height, width, bands] of the stored values times `scale`.

    Args:
      path: the folder, `…/classification_v1.0/m-eurosat`.
      split: `train`, `validation` (or `valid`, as stored) or `test`.
      bands: names separated by commas, in the order wanted; by default all, in the order of their stored names.
      partition: `default`, or a part of the training split: `0.01x_train`, also written `0.01x`.
      names: `corrected`, or `stored` to believe the band names in the files.
      scale: factor on all values. m-so2sat holds reflectances; 10000 gives the units of the other sets.
      no_data: whether the first class of a set of segmentation, no data, is a `class` as it is stored, or `ignored`.
        Published scores may have either.

    Attributes:
      info: description of the bands taken, in order. Classes are named by numbers if the set does not name them;
        statistics are those of band_stats.json.

    Raises:
      UserError: a file, sample, label or band is missing, or the set is not one of `SETS`.
    """

    def __init__(
        self,
        path: str,
        split: str,
        bands: str = "",
        partition: str = "default",
        names: str = "corrected",
        scale: str = "1",
        no_data: str = "",
    ):
        self.spec, self._folder = f"geobench:{path}", epath.Path(path)
        if not path or not self._folder.is_dir():
            raise UserError(f"{self.spec}: no such folder; give one that exists")
        if self._folder.name not in SETS:
            raise UserError(
                f"{self.spec}: the folder must have the name of a data set, which determines its bands; use "
                f"{', '.join(SETS)}"
            )
        self.split = _SPLITS.get(split, split)
        self._scale = _factor(scale, self.spec)
        self._samples = self._read_partition(partition, split)
        self._mask = self._read_classes(no_data)
        self._labels: np.ndarray = np.zeros(0, np.int32)
        classes: tuple[str, ...] = ()
        if not self._mask:
            self._labels, classes = self._read_labels()
        called = self._called(names)  # stored name -> name
        stored = {name: key for key, name in called.items()}
        taken = tuple(bands.split(",")) if bands else tuple(stored)
        if unknown := [name for name in taken if name not in stored]:
            raise UserError(f"{self.spec}: no band {unknown[0]!r}; the bands are {', '.join(stored)}")
        self._keys = [stored[name] for name in taken]
        targets = (self._mask,) if self._mask else ()
        statistics = self._read_statistics()
        self.info = Info(classes, self._labels.ndim == 2, targets=targets, bands=taken, statistics=statistics)

    def __len__(self) -> int:
        return len(self._samples)

    def kept(self, index: int) -> dict[str, Any]:
        """The image; its label, a number or a vector of 0 and 1 [classes]; or its mask, and -1."""
        *there, last = self._bands(index, [*self._keys, "label"] if self._mask else self._keys)
        there = there if self._mask else [*there, last]
        if len({band.shape for band in there}) > 1 or there[0].ndim != 2:
            shapes = ", ".join(str(list(band.shape)) for band in there)
            raise CorruptImage(self.name(index), f"its bands are of shapes {shapes}, not all [height, width]")
        image = np.stack(there, axis=2)
        image = image if self._scale == 1 else image.astype(np.float32) * np.float32(self._scale)
        if self._mask:
            return {"image": image, "label": -1, "mask": self._labels_of(index, last)}
        return {"image": image, "label": self._labels[index] if self.info.multi_label else int(self._labels[index])}

    def _labels_of(self, index: int, stored: np.ndarray) -> np.ndarray:
        """Integer labels [height, width] of a stored mask, which may hold integers as floats."""
        labels = stored.squeeze().astype(np.int64)
        if (labels != stored.squeeze()).any():
            raise CorruptImage(self.name(index), f"its mask has values that are not whole numbers ({stored.dtype})")
        return labels if self._first_counts else without_zero(labels, _IGNORE)

    def name(self, index: int) -> str:
        return str(self._folder / f"{self._samples[index]}.hdf5")

    def _bands(self, index: int, keys: list[str] | None) -> Any:
        """The bands stored under `keys`, in order; for None the names of all bands, without dates."""
        name = self.name(index)
        try:
            with h5py.File(io.BytesIO(epath.Path(name).read_bytes())) as file:
                there = {_DATE.sub("", key): key for key in sorted(file) if key != "label"}
                if len(there) < len(file) - ("label" in file):
                    raise CorruptImage(name, "has several dates of one band")
                if not there:
                    raise CorruptImage(name, "has no bands")
                if keys is None:
                    return list(there)
                return [_values(file, key if key == "label" else there[key]) for key in keys]
        except CorruptImage:
            raise
        except KeyError as error:
            raise CorruptImage(name, f"has no band {error}") from error
        except Exception as error:  # the library raises anything for a damaged file
            raise CorruptImage(name, str(error) or type(error).__name__) from error

    def _called(self, names: str) -> dict[str, str]:
        """The name of each stored band, in the order of the stored names."""
        if names not in _NAMES:
            raise UserError(f"{self.spec}: names={names!r}: must be one of {', '.join(_NAMES)}")
        for index in range(len(self)):
            try:
                keys = self._bands(index, None)
                break
            except CorruptImage as error:
                first = error
        else:
            raise UserError(f"{self.spec}: no readable sample; the last is {first}")
        table = SENTINEL2
        if names == "corrected" and self._folder.name in CORRECTED:
            table = SENTINEL2 | dict(zip(list(SENTINEL2)[5:], CORRECTED[self._folder.name], strict=True))
        return {key: table.get(key, key) for key in keys}

    def _read_classes(self, no_data: str) -> Masks | None:
        """The classes of the pixels, in a segmentation set."""
        names = MASK_CLASSES.get(self._folder.name)
        known = ("class", "ignored") if names else ("",)
        if (no_data or known[0]) not in known:
            what = " or ".join(known) if names else "only a set of segmentation has it"
            raise UserError(f"{self.spec}: no_data={no_data}: {what}")
        self._first_counts = no_data != "ignored"
        return Masks(tuple(names.split("; "))[not self._first_counts :], _IGNORE) if names else None

    def _read_partition(self, partition: str, split: str) -> list[str]:
        """Names of the samples of a split; all of them have a file."""
        files = {file.name for file in self._folder.iterdir()}
        known = sorted(f.removesuffix("_partition.json") for f in files if f.endswith("_partition.json"))
        chosen = partition if partition in known else f"{partition}_train"
        if chosen not in known:
            raise UserError(f"{self.spec}: no partition {partition!r}; the partitions are {', '.join(known) or 'none'}")
        splits = self._json(f"{chosen}_partition.json")
        samples = splits.get(_SPLITS.get(split, ""))
        if not samples:
            there = [name for name in splits if splits[name]]
            parts = f"; parts of one are written {there[0]}[:80%] and {there[0]}[80%:]" if there else ""
            raise UserError(
                f"{self.spec}: no split {split!r} in partition {chosen}; the splits are "
                f"{', '.join(there) or 'none'}{parts}"
            )
        if absent := [sample for sample in samples if f"{sample}.hdf5" not in files]:
            raise UserError(
                f"{self.spec}: {len(absent)} of {len(samples)} samples of split {split} have no file, "
                f"first {absent[0]}.hdf5; copy the whole folder"
            )
        return samples

    def _read_labels(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Labels of the samples, int32 [n] or [n, classes], and the names of the classes."""
        file = next((file for file in _LABELS if (self._folder / file).exists()), None)
        if file is None:
            raise UserError(f"{self.spec}: neither {' nor '.join(_LABELS)} there; copy the whole folder")
        try:
            labels, names = _LABELS[file](self._json(file))
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(f"{self.spec}: {file}: {error}") from error
        if absent := [sample for sample in self._samples if sample not in labels]:
            raise UserError(f"{self.spec}: {file} has no label for {len(absent)} samples, first {absent[0]}")
        known = tuple(CLASS_NAMES.get(self._folder.name, "").split("; "))
        if len(known) == len(names) and all(name.isdecimal() for name in names):
            names = known
        return np.array([labels[sample] for sample in self._samples], np.int32), names

    def _read_statistics(self) -> Statistics | None:
        if not (self._folder / "band_stats.json").exists():
            return None
        stats = self._json("band_stats.json")
        try:
            pairs = [(self._scale * stats[key]["mean"], self._scale * stats[key]["std"]) for key in self._keys]
        except (KeyError, TypeError) as error:
            raise UserError(f"{self.spec}: band_stats.json has no mean and std of {error}") from error
        mean, std = zip(*pairs, strict=True)
        return mean, std

    def _json(self, file: str) -> dict[str, Any]:
        try:
            return parse_json((self._folder / file).read_text())
        except ValueError as error:
            raise UserError(f"{self.spec}: {file} is damaged ({error}); copy it again") from error


def _values(file: h5py.File, key: str) -> np.ndarray:
    """The values of a data set that are in this file. Raises ValueError for one that is in another file, or larger than
    the file can hold: the library would read the one and allocate the other.
    """
    found = file.get(key, getlink=True)
    if isinstance(found, h5py.ExternalLink):
        raise ValueError(f"{key} is in another file, {found.filename}")
    stored = file[key]
    if not isinstance(stored, h5py.Dataset) or stored.external or stored.is_virtual:
        raise ValueError(f"{key} is not an array in this file")
    size = file.id.get_filesize()
    for shape in (stored.shape, stored.chunks or ()):
        check_declared(math.prod(shape) * stored.dtype.itemsize, size)
    parts: list[int] = []
    if stored.chunks:
        stored.id.chunk_iter(lambda part: parts.append(part.size))  # in one pass
    if max(parts, default=0) > size:
        raise ValueError(f"{key} has a part that is longer than the file")
    return stored[()]


def _labels_of_map(classes: dict[str, list[str]]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Label of every sample, and the names: a class written as a number is that label, else they are counted."""
    numbered = all(name.isdecimal() for name in classes)
    names = tuple(map(str, range(1 + max(map(int, classes))))) if numbered else tuple(classes)
    labels: dict[str, int] = {}
    for place, (name, samples) in enumerate(classes.items()):
        if twice := labels.keys() & set(samples):
            raise ValueError(f"{min(twice)} has two classes")
        labels.update(dict.fromkeys(samples, int(name) if numbered else place))
    return labels, names


def _labels_of_vectors(vectors: dict[str, list[float]]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The vector of every sample, and numbers for names."""
    lengths = {len(vector) for vector in vectors.values()}
    if len(lengths) != 1 or any(value not in (0, 1) for vector in vectors.values() for value in vector):
        raise ValueError("the vectors must be of one length and hold 0 and 1; is this a segmentation set?")
    return vectors, tuple(map(str, range(lengths.pop())))


_LABELS: dict[str, Callable[[Any], tuple[dict[str, Any], tuple[str, ...]]]] = {
    "label_map.json": _labels_of_map,
    "label_stats.json": _labels_of_vectors,
}


def _factor(scale: str, spec: str) -> float:
    try:
        factor = float(scale)
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:
        raise UserError(f"{spec}: scale={scale}: must be a number above 0")
    return factor
