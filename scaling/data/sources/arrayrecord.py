"""ArrayRecord data sets: what a record is, the manifest of a folder, and the source that reads them."""

import functools
import json
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from etils import epath
from flax import serialization

from scaling.core.errors import UserError
from scaling.data.images import CorruptImage, pixels_of
from scaling.data.sources.base import Example, Stored
from scaling.data.sources.slices import no_split

MANIFEST = "manifest.json"
FORMAT = 1


def pack(image: bytes | np.ndarray, label: int | np.ndarray, name: str) -> bytes:
    """One record: an encoded image file or an array [height, width, bands], its label and its name, as msgpack."""
    return serialization.msgpack_serialize({"image": image, "label": label, "name": name})


def unpack(record: bytes) -> dict[str, Any]:
    """What `pack` was given."""
    return serialization.msgpack_restore(record)


def prepared_splits(path: str) -> tuple[str, ...]:
    """Names of the splits in a folder that `scaling.prepare` wrote. Raises UserError as `ArrayRecords`."""
    return tuple(_manifest(path)["splits"])


def _manifest(path: str) -> dict[str, Any]:
    folder, spec = epath.Path(path), f"arrayrecord:{path}"
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        raise UserError(f"{spec}: no {MANIFEST} there; write one with `python -m scaling.prepare`") from None
    except ValueError as error:
        raise UserError(f"{spec}: {MANIFEST} is damaged ({error}); prepare the folder again") from error
    if manifest.get("format") != FORMAT:
        raise UserError(f"{spec}: {MANIFEST} is of format {manifest.get('format')}, expected {FORMAT}")
    return manifest


class ArrayRecords(Stored):
    """One split of a folder that `scaling.prepare` wrote; local or in a bucket.

    Attributes:
      multi_label, statistics: of the images, from the manifest; mean and standard deviation of every band.
    """

    def __init__(self, path: str, split: str):
        folder = epath.Path(path)
        self.spec, self.split, manifest = f"arrayrecord:{path}", split, _manifest(path)
        if split not in manifest["splits"]:
            raise no_split(self.spec, split, manifest["splits"])
        part = manifest["splits"][split]
        self.class_names = tuple(manifest["class_names"])
        self.multi_label = manifest.get("multi_label", False)
        self.statistics = (tuple(part["mean"]), tuple(part["std"]))
        self._count = int(part["count"])
        self._shards = [str(folder / shard) for shard in part["shards"]]
        if absent := [shard for shard in self._shards if not epath.Path(shard).exists()]:
            raise UserError(f"{self.spec}: {len(absent)} shards are missing, first {absent[0]}; copy the whole folder")

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_records"}

    @functools.cached_property
    def _records(self) -> ArrayRecordDataSource:
        records = ArrayRecordDataSource(self._shards)
        if len(records) != self._count:
            raise UserError(
                f"{self.spec}: {len(records)} records, the manifest says {self._count}; copy the folder anew"
            )
        return records

    def __len__(self) -> int:
        return self._count

    def stored(self, index: int) -> tuple[bytes | np.ndarray, Any]:
        """The original file or the array, and the label."""
        record = self._unpacked(index)
        return record["image"], record["label"]

    def __getitem__(self, index: int) -> Example:
        record = self._unpacked(index)  # once, for the image and for its name
        return {"image": pixels_of(record["image"], record["name"]), "label": record["label"]}

    def name(self, index: int) -> str:
        try:
            return self._unpacked(index)["name"]
        except CorruptImage as error:
            return error.name

    def _unpacked(self, index: int) -> dict[str, Any]:
        name = f"{self.spec} record {index}"
        try:
            return unpack(self._records[index])
        except UserError:
            raise
        except Exception as error:  # a damaged block: the reader and msgpack raise what they like
            raise CorruptImage(name, str(error) or type(error).__name__) from error
