"""Rot: files of ours with bytes flipped, cut off, emptied or swapped with those of another. What is read is equal to
what was written, or the damage is named; a silent other number is the defect.

Files of rows are text that people edit and merge, so they carry no checksum: one digit in place of another cannot be
told from an edit. Only cuts, emptied and missing files, which take rows away, are tried on them. The rows left must be
as written; a file without rows is refused, and a last line cut short is named in a warning.
"""

import dataclasses
import functools
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaling.core.config import config_dict
from scaling.core.rows import given_rows, write_rows
from scaling.data.images import CorruptImage
from scaling.data.prepare import Preparation, convert
from scaling.data.sources.registry import open_source
from tests.data.examples import class_folders, smooth
from tests.drills import workers
from tests.drills.cases import Outcome, Part, random_of
from tests.drills.hostile.containers import _zipped
from tests.rows import ROW

COUNT = 5_000


@dataclasses.dataclass(frozen=True)
class Kept:
    """Something that is kept in files.

    Attributes:
      name, about: name and content.
      write: writes it into a folder; the seed makes another of the same kind, to swap files with.
      read: its numbers, by name, from the folder.
      grows: whether it may be shorter: what lacks is measured again.
      kinds: kinds of damage tried; see `damage`.
    """

    name: str
    about: str
    write: Callable[[Path, int], None]
    read: Callable[[Path], dict[str, Any]]
    grows: bool = False
    kinds: tuple[str, ...] = ("flip", "flip", "flip", "range", "cut", "empty", "gone")

    def run(self, cases: Iterable[int]) -> Iterator[Outcome]:
        """Damages the files in the way of each case, and reads them."""
        with tempfile.TemporaryDirectory(prefix="drills-rot-") as made:
            for seed in (0, 1):
                _in_child(functools.partial(self.write, Path(made) / str(seed), seed))
            whole, other = (Path(made) / str(seed) for seed in (0, 1))
            expected: dict[str, Any] = {}

            def warm(folder: Path) -> None:
                shutil.copytree(whole, folder / "kept")
                expected.update(self.read(folder / "kept"))

            def read(folder: Path, case: int) -> str | None:
                _renew(whole, folder / "kept")
                how = damage(folder / "kept", other, random_of(f"rot:{self.name}", case), self.kinds)
                found = self.read(folder / "kept")
                wrong = _difference({k: v for k, v in expected.items() if k in found or not self.grows}, found)
                return f"{how}: {wrong}" if wrong else None

            yield from workers.judged(read, warm, cases)

    def part(self) -> Part:
        return Part(f"rot:{self.name}", self.about, self.run, COUNT, 200, 200)


def _in_child(act: Callable[[], None]) -> None:
    """Acts in a forked process: one whose libraries have threads cannot be forked later."""
    child = os.fork()
    if not child:
        try:
            act()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the files could not be written")


def _renew(whole: Path, folder: Path) -> None:
    """Undoes the damage of the last case and what reading may have left."""
    files = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
    for path in [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder) not in files]:
        path.unlink()
    for file in files:
        (folder / file).write_bytes((whole / file).read_bytes())


def damage(folder: Path, other: Path, rng: random.Random, kinds: Sequence[str]) -> str:
    """Damages one file, of larger ones more often; returns what was done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    file = rng.choices(files, [path.stat().st_size ** 0.5 for path in files])[0]
    data = bytearray(file.read_bytes())
    kind = rng.choice([*kinds, "swap"] if len(files) > 1 else kinds)  # a whole file in place of another is that file
    at = rng.randrange(len(data))
    if kind == "flip":
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "range":
        size = rng.choice((2, 16, 512, 4096))
        data[at : at + size] = rng.randbytes(len(data[at : at + size]))
    elif kind == "cut":
        del data[at:]
    elif kind == "empty":
        del data[:]
    elif kind == "swap":
        source = other / file.relative_to(folder)
        data = bytearray(source.read_bytes() if source.exists() else b"")
    if kind == "gone":
        file.unlink()
    else:
        file.write_bytes(data)
    return f"{kind} at {at} of {file.relative_to(folder)}"


def _difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    if expected.keys() != found.keys():
        return f"holds {len(found)} things, not {len(expected)}: {sorted(expected.keys() ^ found.keys())[:2]}"
    for name, value in expected.items():
        one, two = np.asarray(value), np.asarray(found[name])
        if one.shape != two.shape or one.dtype != two.dtype or one.tobytes() != two.tobytes():
            return f"other numbers in {name}"
    return ""


def _write_checkpoint(folder: Path, seed: int) -> None:
    from flax.traverse_util import flatten_dict, unflatten_dict

    from scaling.encoders.writing import write_parameters
    from scaling.training.config import TrainConfig
    from tests.encoders.examples import blank_encoder, small_encoder

    rng = np.random.default_rng(seed)
    drawn = {k: rng.normal(size=v.shape).astype(np.float32) for k, v in flatten_dict(small_encoder().params).items()}
    config = json.loads(config_dict(TrainConfig(model=blank_encoder().config, seed=seed)).to_json_best_effort())
    write_parameters({"encoder": unflatten_dict(drawn)}, 3, config, folder)


def _read_checkpoint(folder: Path) -> dict[str, Any]:
    from flax.traverse_util import flatten_dict

    from scaling.encoders.loading import load_encoder

    encoder = load_encoder(folder)
    config = {"config": json.dumps(dataclasses.asdict(encoder.train), default=str), "step": encoder.step}
    return {**{"/".join(k): np.asarray(v) for k, v in flatten_dict(encoder.params).items()}, **config}


def _write_records(folder: Path, seed: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        class_folders(Path(place) / "set", 5, ("forest", "river") if not seed else ("lake", "town"))
        plan = Preparation(f"folder:{place}/set", ("train",), str(folder), size=8, shard_size=5)
        convert(plan, 1, lambda n: None, lambda n: None)


def _read_records(folder: Path) -> dict[str, Any]:
    return _examples(f"arrayrecord:{folder}")


def _examples(spec: str) -> dict[str, Any]:
    source = open_source(spec, "train")
    found: dict[str, Any] = {"classes": source.info.classes, "statistics": source.info.statistics or ()}
    for i in range(len(source)):
        example = source[i]
        found |= {f"{i} name": source.name(i), f"{i} image": example["image"], f"{i} label": example["label"]}
    return found


def _write_zip(folder: Path, seed: int) -> None:
    from tests.data.examples import png

    folder.mkdir()
    files = {f"{name}/{i}.png": png(smooth(seed * 100 + i, 8, 8)) for name in ("a", "b") for i in range(4)}
    (folder / "set.zip").write_bytes(_zipped(files))


def _read_zip(folder: Path) -> dict[str, Any]:
    if not (folder / "set.zip").exists():
        raise CorruptImage("set.zip", "gone")
    return _examples(f"zip:{folder}/set.zip")


def _write_rows(folder: Path, seed: int) -> None:
    folder.mkdir()
    rng = random.Random(seed)
    write_rows(folder / "rows.jsonl", [dataclasses.replace(ROW, seed=i, value=rng.random()) for i in range(20)])


def _read_rows(folder: Path) -> dict[str, Any]:
    return {str(i): json.dumps(dataclasses.asdict(row)) for i, row in enumerate(given_rows(folder / "rows.jsonl"))}


KEPT = (
    Kept("checkpoint", "checkpoint of an encoder", _write_checkpoint, _read_checkpoint),
    Kept("arrayrecord", "prepared folder: manifest and shards", _write_records, _read_records),
    Kept("zip", "zip archive of images", _write_zip, _read_zip),
    Kept("rows", "file of rows, cut, emptied or gone", _write_rows, _read_rows, True, ("cut", "cut", "empty", "gone")),
)
PARTS = tuple(kept.part() for kept in KEPT)
