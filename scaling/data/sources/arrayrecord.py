"""ArrayRecord data sets: the format of a record, the manifest of a folder, and the source that reads them."""

import concurrent.futures
import dataclasses
import functools
import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from etils import epath
from flax import serialization

from scaling.core.errors import TemporaryError, TrainingError, UserError
from scaling.core.files import in_bucket, parse_json
from scaling.data.images import CorruptImage, pixels_of
from scaling.data.sources.base import Info, Stored
from scaling.data.sources.slices import no_split, sliced, terms
from scaling.data.targets import KINDS, Target

MANIFEST = "manifest.json"
# What Cloud Storage's client says of an answer that it did not get, which says nothing about the record.
_NOT_ANSWERED = re.compile(r"(?:Permanent error|Retry policy exhausted)[^;\n]*")
_ASKED = 32  # shards that are looked for at once
_START = 192  # bytes of a shard that identify it: the format's first chunk header has a hash of its records
_PLAIN, _WITH_TARGETS = 1, 2  # formats; folders with only images and labels are written in the first


def format_of(info: Info) -> int:
    """The format in which the examples of a source are stored."""
    return _WITH_TARGETS if info.targets else _PLAIN


def pack(
    image: bytes | np.ndarray, label: int | np.ndarray, name: str, targets: Mapping[str, Any] | None = None
) -> bytes:
    """One record as msgpack: an encoded image file or an array [height, width, bands], its label, its name, and its
    targets as packed by `scaling.data.targets.Target`; a record with targets states its format.
    """
    record = {"image": image, "label": label, "name": name}
    return serialization.msgpack_serialize(record | ({"format": _WITH_TARGETS, **targets} if targets else {}))


def unpack(record: bytes) -> dict[str, Any]:
    """The arguments of `pack`, from its result."""
    return serialization.msgpack_restore(record)


def prepared_splits(path: str) -> tuple[str, ...]:
    """Names of the splits in a folder that `scaling.prepare` wrote. For UserError see `ArrayRecords`."""
    return tuple(_manifest(path)["splits"])


def shards_of(path: str, split: str) -> list[str]:
    """Names of the files that a split needs; the split may be a slice or a union.

    Raises:
      UserError: see `ArrayRecords`.
    """
    there = _manifest(path)["splits"]
    if split in there:
        return list(there[split]["shards"])
    parts = terms(split)
    wholes = parts if len(parts) > 1 else [sliced(split)]
    if not wholes[0]:
        raise no_split(f"arrayrecord:{path}", split, there)
    return list(dict.fromkeys(shard for whole in wholes for shard in shards_of(path, whole)))


def _manifest(path: str) -> dict[str, Any]:
    folder, spec = epath.Path(path), f"arrayrecord:{path}"
    try:
        manifest = parse_json((folder / MANIFEST).read_text())
    except FileNotFoundError:
        raise UserError(f"{spec}: no {MANIFEST} there; write one with `python -m scaling.prepare`") from None
    except ValueError as error:
        raise UserError(f"{spec}: {MANIFEST} is damaged ({error}); prepare the folder again") from error
    if not isinstance(manifest, dict):
        raise UserError(f"{spec}: {MANIFEST} is damaged (it holds no fields); prepare the folder again")
    if manifest.get("format") not in (_PLAIN, _WITH_TARGETS):
        known = f"{_PLAIN} or {_WITH_TARGETS}"
        raise UserError(f"{spec}: {MANIFEST} is of format {manifest.get('format')}, expected {known}")
    if not isinstance(manifest.get("splits"), dict):
        raise UserError(f"{spec}: {MANIFEST} is damaged (it names no splits); prepare the folder again")
    if "checksum" in manifest and manifest["checksum"] != checksum_of(manifest):
        raise UserError(f"{spec}: {MANIFEST} is not as it was written; prepare the folder again, or copy it anew")
    return manifest


def checksum_of(manifest: Mapping[str, Any]) -> int:
    """CRC-32 of all other fields of a manifest. Those of earlier versions have none."""
    rest = {name: value for name, value in manifest.items() if name != "checksum"}
    return zlib.crc32(json.dumps(rest, sort_keys=True).encode())


def start_of(shard: epath.Path) -> int:
    """CRC-32 of the beginning of a shard."""
    with shard.open("rb") as file:
        return zlib.crc32(file.read(_START))


def declared(info: Info) -> dict[str, Any]:
    """An `Info` as stored in the manifest, without the statistics of a split."""
    targets = [{"name": target.name, **dataclasses.asdict(target)} for target in info.targets]  # type: ignore[call-overload]
    plain = {"class_names": info.classes, "multi_label": info.multi_label}
    more = {"targets": targets, "band_names": info.bands, "units": info.units}
    return plain | {name: value for name, value in more.items() if value}


def _info(manifest: dict[str, Any], part: dict[str, Any]) -> Info:
    """The stored `Info`, with the statistics of a split."""
    targets = []
    for fields in manifest.get("targets", ()):
        values = {name: tuple(x) if isinstance(x, list) else x for name, x in fields.items() if name != "name"}
        targets.append(KINDS[fields["name"]](**values))
    return Info(
        classes=tuple(manifest["class_names"]),
        multi_label=manifest.get("multi_label", False),
        targets=tuple(targets),
        bands=tuple(manifest.get("band_names", ())),
        units=manifest.get("units", ""),
        statistics=(tuple(part["mean"]), tuple(part["std"])),
    )


class _Example(dict[str, Any]):
    """An example whose targets are decoded on access: most runs use none of them."""

    def __init__(self, record: dict[str, Any], targets: Sequence[Target]):
        super().__init__(label=record["label"])
        self._record, self._targets = record, {target.name: target for target in targets}

    def __missing__(self, name: str) -> Any:
        target = self._targets[name]
        try:
            self[name] = target.unpacked(self._record[name])
        except Exception as error:  # as for a damaged image: codecs raise anything
            raise CorruptImage(self._record["name"], f"its {name} cannot be read: {error!r}") from error
        return self[name]


class ArrayRecords(Stored):
    """One split of a folder that `scaling.prepare` wrote; local or in a bucket. Its `info` comes from the manifest."""

    def __init__(self, path: str, split: str):
        folder = epath.Path(path)
        self.spec, self.split, manifest = f"arrayrecord:{path}", split, _manifest(path)
        self._path = path
        if split not in manifest["splits"]:
            raise no_split(self.spec, split, manifest["splits"])
        try:
            part = manifest["splits"][split]
            self.info = _info(manifest, part)
            self._count = int(part["count"])
            self._shards = [str(folder / shard) for shard in part["shards"]]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            what = f"{type(error).__name__}: {error}"
            raise UserError(f"{self.spec}: {MANIFEST} is damaged ({what}); prepare the folder again") from error
        self._check_shards(part.get("starts", ()))

    def _check_shards(self, starts: Sequence[int]) -> None:
        """Raises UserError for shards that are missing, or begin otherwise than those that were written: of another
        data set. Damage further on is found by the checksums of the format. Earlier folders, and buckets, have none.
        """
        files = [epath.Path(shard) for shard in self._shards]
        with concurrent.futures.ThreadPoolExecutor(_ASKED) as pool:  # a bucket answers each in tens of milliseconds
            there = list(pool.map(lambda file: file.exists(), files))
        if absent := [file for file, exists in zip(files, there, strict=True) if not exists]:
            raise UserError(f"{self.spec}: {len(absent)} shards are missing, first {absent[0]}; copy the whole folder")
        for file, start in zip(files, () if in_bucket(self._path) else starts, strict=False):
            if start_of(file) != start:
                raise UserError(f"{self.spec}: {file.name} is not the file that was written; copy the folder anew")

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_records", "_listed")}

    @functools.cached_property
    def _records(self) -> ArrayRecordDataSource:
        records = ArrayRecordDataSource(self._shards)
        if len(records) != self._count:
            raise UserError(
                f"{self.spec}: {len(records)} records, but the manifest lists {self._count}; copy the folder again"
            )
        return records

    def __len__(self) -> int:
        return self._count

    @functools.cached_property
    def stored_labels(self) -> np.ndarray | None:
        """Labels of all images, read from the records without decoding images, [N] or [N, L]; -1 for an unreadable
        record. None if the images have no labels.
        """
        if not self.info.classes:
            return None
        return self._listed[0]

    @functools.cached_property
    def _listed(self) -> tuple[np.ndarray, np.ndarray]:
        if in_bucket(self._path):
            state = json.dumps(_manifest(self._path)["splits"][self.split])
        else:
            state = str([(found.st_size, found.st_mtime_ns) for found in map(os.stat, self._shards)])
        return _listed(self._path, self.split, state)

    def kept(self, index: int) -> dict[str, Any]:
        """The original file or array, and its label and targets."""
        record = self._unpacked(index)
        example = _Example(record, self.info.targets)
        targets = {target.name: example[target.name] for target in self.info.targets}
        return {"image": record["image"], "label": record["label"], **targets}

    def __getitem__(self, index: int) -> Any:
        record = self._unpacked(index)  # once, for the image and for its name
        example = _Example(record, self.info.targets)
        example["image"] = pixels_of(record["image"], record["name"])
        return example

    def name(self, index: int) -> str:
        if "_listed" in self.__dict__:
            return bytes(self._listed[1][index]).decode()
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
        except Exception as error:  # a damaged block, or a bucket: the reader and msgpack raise anything
            if answer := _NOT_ANSWERED.search(str(error)):
                raise _not_read(name, answer[0]) from error
            raise CorruptImage(name, str(error) or type(error).__name__) from error

    def listed(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels of all images as in `stored_labels`, and their names, UTF-8, in one pass over the records."""
        missing = np.full(len(self.info.classes), -1) if self.info.multi_label else -1
        labels, names = [], []
        for index in range(self._count):
            try:
                record = self._unpacked(index)
            except CorruptImage as error:
                record = {"label": missing, "name": error.name}
            labels.append(record["label"])
            names.append(record["name"].encode())
        return np.array(labels), np.array(names)


def _not_read(name: str, answer: str) -> UserError:
    """The error of a record that a bucket does not give: skipped like a corrupt one, it would be another image."""
    if answer.startswith("Permanent"):
        return TrainingError(f"{name}: cannot be read ({answer}); get permission or put it back, and start again")
    return TemporaryError(f"{name}: cannot be read ({answer}); start the same command again")


@functools.lru_cache(maxsize=4)
def _listed(path: str, split: str, state: str) -> tuple[np.ndarray, np.ndarray]:
    """`ArrayRecords.listed`, kept for all that open the split while its files have this state."""
    labels, names = ArrayRecords(path, split).listed()
    labels.flags.writeable = names.flags.writeable = False
    return labels, names
