"""How fast training batches come from a bucket that answers late, and from a copy of it on this machine.

    python -m tests.bench.bucket_reading [--images=2000] [--latency=20,40]

The bucket is the emulator of the tests, a Python server on this machine that waits so many milliseconds before each
answer. Images are decoded, cropped to 224 pixels and flipped as in training. Rates are of one host, in images a second;
requests for images are counted by the server.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tests.bucket import serve


def rate(config, images: int) -> float:
    """Images a second, the first batches left out."""
    from scaling.data.config import open_sources
    from scaling.data.pipeline import train_batches

    source, _ = open_sources(config)
    feed = train_batches(source, config, image_size=224, seed=0, batch_size=128)
    next(feed)
    began, seen = time.perf_counter(), 0
    while seen < images:
        seen += len(next(feed)["image"])
    seconds = time.perf_counter() - began
    feed.close()
    return seen / seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--latency", default="20,40")
    flags = parser.parse_args()
    with serve() as bucket, tempfile.TemporaryDirectory() as folder:
        os.environ |= bucket.variables
        from scaling.data.config import DataConfig
        from tests.commands import call, command

        random, images = np.random.default_rng(0), Path(folder) / "images" / "a"
        images.mkdir(parents=True)
        for i in range(512):
            noise = random.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(noise).resize((256, 256)).save(images / f"{i}.jpg", quality=90)
        source = f"folder:{images.parent}"
        assert call(command("prepare", source=source, output="gs://bucket/data", shard_size=64)).returncode == 0
        where = "arrayrecord:gs://bucket/data"
        for milliseconds in map(int, flags.latency.split(",")):
            bucket.latency = milliseconds / 1e3
            bucket.requests.clear()
            unstaged = rate(DataConfig(source=where, threads=0), flags.images)
            requests = sum(n for name, n in bucket.requests.items() if "manifest" not in name)
            staged = rate(DataConfig(source=where, threads=0, stage=f"{folder}/stage"), flags.images)
            print(
                f"{milliseconds} ms: {unstaged:,.0f} images/s from the bucket ({requests:,} requests), "
                f"{staged:,.0f} staged: {staged / unstaged:.1f}x",
                flush=True,
            )


if __name__ == "__main__":
    main()
