"""How fast training batches come from a bucket that answers late, and from a copy of it on this machine.

    python -m tests.bench.bucket_reading [--images=2000] [--latency=20,40]

The bucket is the emulator of the tests, a Python server in a process of its own that waits so many milliseconds before
each answer. Images are read in three ways: from a copy; from the bucket with the default, every image of a task
requested at once in each of eight threads; and from the bucket one after the other in each of them, as before. JPEGs of
256 pixels are decoded, cropped to 224 and flipped as in training; arrays of 64 pixels, cropped to 56, cost next to
nothing but their transport. Rates are of one host, in images a second. Requests for images are counted by the server,
once the shards have been opened; processor time is that of the reading process and of the server, per image.
"""

import argparse
import contextlib
import dataclasses
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from tests.bucket import serve

COUNT, SHARD = 1024, 128
BATCH = 128


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one way of reading costs.

    Attributes:
      rate: images a second.
      requests: requests per image, and how many it took to open the shards.
      reader, server: milliseconds of processor time per image.
    """

    rate: float
    requests: float
    opening: int
    reader: float
    server: float

    def cells(self, staged: float) -> str:
        return (
            f"{self.rate:,.0f} | {staged / self.rate:.1f} | {self.requests:.3f} | {self.opening} | {self.reader:.2f} | "
            f"{self.server:.2f}"
        )


def _server(pipe: Connection) -> None:
    """Serves a bucket; told a latency in seconds it counts anew, told None it answers with counts and its time."""
    with serve() as bucket:
        pipe.send(bucket.variables)
        began = time.process_time()
        while True:
            try:
                told = pipe.recv()
            except EOFError:
                return
            if told is not None:
                bucket.latency, began = told, time.process_time()
                bucket.requests.clear()
            count = sum(n for name, n in bucket.requests.items() if "manifest" not in name)
            pipe.send((count, time.process_time() - began))


@contextlib.contextmanager
def _emulator() -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_server, args=[theirs], daemon=True)
    process.start()
    os.environ |= ours.recv()
    try:
        yield ours
    finally:
        ours.close()
        process.terminate()


def _asked(server: Connection, latency: float | None = None) -> tuple[int, float]:
    server.send(latency)
    return server.recv()


def measure(server: Connection, latency: float, config: Any, size: int, images: int) -> Measured:
    """Reads batches for a while, with all shards open and the first batch left out."""
    from scaling.data.config import open_sources
    from scaling.data.pipeline import train_batches
    from scaling.data.sources.arrayrecord import ArrayRecords

    _asked(server, latency)
    source, _ = open_sources(config)
    for first in range(0, COUNT, SHARD):
        source[first]
    opening = _asked(server)[0] - (0 if config.stage else COUNT // SHARD)
    read, get = [0], ArrayRecords.__getitem__

    def counted(self: ArrayRecords, index: int) -> Any:
        read[0] += 1
        return get(self, index)

    with mock.patch.object(ArrayRecords, "__getitem__", counted):
        _asked(server, latency)
        feed = train_batches(source, config, image_size=size, seed=0, batch_size=BATCH)
        next(feed)
        began, cpu, (_, busy), seen = time.perf_counter(), time.process_time(), _asked(server), 0
        while seen < images:
            seen += len(next(feed)["image"])
        seconds, cpu, busy = time.perf_counter() - began, time.process_time() - cpu, _asked(server)[1] - busy
        feed.close()
        time.sleep(1)  # what was in flight
        requests = _asked(server)[0]
    return Measured(seen / seconds, requests / read[0], opening, 1e3 * cpu / seen, 1e3 * busy / seen)


def _jpegs(folder: Path) -> None:
    random = np.random.default_rng(0)
    for i in range(COUNT):
        noise = random.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(noise).resize((256, 256)).save(folder / f"{i}.jpg", quality=90)


def _arrays(folder: Path) -> None:
    random = np.random.default_rng(0)
    for i in range(COUNT):
        np.save(folder / f"{i}.npy", random.integers(0, 256, (64, 64, 3), np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--latency", default="20,40")
    flags = parser.parse_args()
    with _emulator() as server, tempfile.TemporaryDirectory() as folder:
        from scaling.data.config import DataConfig
        from tests.commands import call, command

        columns = "images, latency, read, images/s, staged is faster, requests per image, to open, reader ms, server ms"
        print(f"| {' | '.join(columns.split(', '))} |\n{'|---' * 9}|")
        for kind, make, size in (("JPEG, 256 px", _jpegs, 224), ("array, 64 px", _arrays, 56)):
            source = Path(folder) / make.__name__ / "a"
            source.mkdir(parents=True)
            make(source)
            where = f"gs://bucket/data{make.__name__}"
            prepared = command("prepare", source=f"folder:{source.parent}", output=where, shard_size=SHARD)
            assert call(prepared).returncode == 0
            config = DataConfig(source=f"arrayrecord:{where}")
            copy = dataclasses.replace(config, stage=f"{folder}/stage")
            for milliseconds in map(int, flags.latency.split(",")):
                latency = milliseconds / 1e3
                staged = measure(server, latency, copy, size, flags.images)
                print(f"| {kind} | {milliseconds} ms | copy | {staged.cells(staged.rate)} |", flush=True)
                together = measure(server, latency, config, size, flags.images)
                print(f"| {kind} | {milliseconds} ms | at once | {together.cells(staged.rate)} |", flush=True)
                with mock.patch("scaling.data.loading.in_bucket", return_value=False):
                    apart = measure(server, latency, config, size, flags.images)
                print(f"| {kind} | {milliseconds} ms | 8 threads | {apart.cells(staged.rate)} |", flush=True)


if __name__ == "__main__":
    main()
