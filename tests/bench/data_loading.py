"""How fast images are decoded, cropped, flipped and normalised, beside a torch DataLoader that does the same.

    python -m tests.bench.data_loading [--images=1024] [--repeats=5]

Both sides read the same JPEG bytes from memory, use all cores this process may run on, crop by the same rule, resize
with the same antialiased bicubic filter (the torch side Pillow's) and end with normalised float32 batches in the main
process. Ours normalises whole batches in one compiled XLA kernel, as training does on its device. Repeats alternate
between the two sides; medians are shown, of wall time (per core) and of processor time (all processes), which a busy
machine disturbs less. Needs torch.
"""

import argparse
import dataclasses
import io
import math
import multiprocessing
import os
import random
import statistics
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import torch
from PIL import Image

from scaling.data.arrays import normalise
from scaling.data.config import DataConfig
from scaling.data.pipeline import train_batches
from scaling.data.sources.base import Info, Stored

MEAN, STD = (110.0, 115.0, 105.0), (55.0, 52.0, 50.0)
BATCH = 128
CORES = len(os.sched_getaffinity(0))
HURRICANE = Path(__file__).parents[3] / "shared/data/hurricane/images.zip"


@dataclasses.dataclass
class InMemory(Stored):
    """JPEG bytes held in memory."""

    files: list[bytes]
    info: Info = dataclasses.field(default_factory=Info)

    def __len__(self) -> int:
        return len(self.files)

    def stored(self, index: int) -> tuple[bytes, int]:
        return self.files[index], 0

    def name(self, index: int) -> str:
        return str(index)


class TorchImages(torch.utils.data.Dataset):
    """The usual torch data set: Pillow decodes and crops (torchvision's rule), torch normalises."""

    def __init__(self, files: list[bytes], size: int):
        self.files, self.size = files, size
        self.mean, self.std = torch.tensor(MEAN)[:, None, None] / 255, torch.tensor(STD)[:, None, None] / 255

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.open(io.BytesIO(self.files[index])).convert("RGB")
        image = image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=self.crop(*image.size))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255)
        return pixels.sub_(self.mean).div_(self.std), 0

    @staticmethod
    def crop(width: int, height: int) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = width * height * random.uniform(0.2, 1.0)
            aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                left, upper = random.randint(0, width - w), random.randint(0, height - h)
                return left, upper, left + w, upper + h
        return 0, 0, width, height


def ours(files: list[bytes], size: int, **options: int) -> tuple[Callable[[], object], Callable[[], None]]:
    """A call that makes one normalised batch, and one that ends it."""
    config = DataConfig(source="memory", **options)
    batches = train_batches(InMemory(files), config, image_size=size, seed=0, batch_size=BATCH)
    kernel = jax.jit(lambda image: normalise(image, MEAN, STD))
    return lambda: kernel(next(batches)["image"]).block_until_ready(), batches.close


def torchs(files: list[bytes], size: int, workers: int) -> tuple[Callable[[], object], Callable[[], None]]:
    """The same for a torch DataLoader with worker processes; endless, as ours."""
    sampler = torch.utils.data.RandomSampler(range(len(files)), replacement=True, num_samples=2**30)
    data = TorchImages(files, size)
    loader = iter(torch.utils.data.DataLoader(data, BATCH, sampler=sampler, num_workers=workers, drop_last=True))

    def close() -> None:
        if workers:
            loader._shutdown_workers()

    return lambda: next(loader), close


def measure(start: Callable[[], tuple[Callable[[], object], Callable[[], None]]], images: int) -> tuple[float, float]:
    """Images per second and core by wall time, and by processor time of this process and its children."""
    step, close = start()
    made = 0
    for _ in range(4):  # workers start, queues fill
        step()
    began, cpu_began = time.perf_counter(), cpu_time()
    while made < images:
        step()
        made += BATCH
    wall, cpu = time.perf_counter() - began, cpu_time() - cpu_began
    close()
    return made / wall / CORES, made / cpu


def cpu_time() -> float:
    """Seconds of processor time of this process and of its living worker processes."""
    ticks = 0
    for child in multiprocessing.active_children():
        after_name = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(after_name[11]) + int(after_name[12])  # user and system time
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def photographs(count: int) -> list[bytes]:
    """JPEGs of 400 to 512 pixels with detail at every scale."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(count):
        width, height = rng.integers(400, 513, 2)
        image = np.zeros((height, width, 3), np.float32)
        for scale in (2, 4, 8, 16, 32, 64):
            noise = rng.normal(128, 6 * scale**0.6, (height // scale + 2, width // scale + 2, 3)).clip(0, 255)
            layer = Image.fromarray(noise.astype(np.uint8)).resize((int(width), int(height)), Image.Resampling.BICUBIC)
            image += np.asarray(layer, np.float32) - 128
        buffer = io.BytesIO()
        Image.fromarray((image + 128).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=88)
        files.append(buffer.getvalue())
    return files


def tiles(count: int) -> list[bytes]:
    """128-pixel satellite tiles, or photographs reduced to that size where the data set is absent."""
    if HURRICANE.exists():
        with zipfile.ZipFile(HURRICANE) as archive:
            return [archive.read(name) for name in archive.namelist()[:count]]
    small = []
    for file in photographs(256):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(file)).resize((128, 128)).save(buffer, "JPEG", quality=75)
        small.append(buffer.getvalue())
    return (small * math.ceil(count / len(small)))[:count]


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--images", type=int, default=1024)
    flags.add_argument("--repeats", type=int, default=5)
    options = flags.parse_args()
    torch.set_num_threads(1)
    print(f"{CORES} cores, load {os.getloadavg()[0]:.1f}, batch {BATCH}, images/s per core (wall; processor time)")
    for size, files in ((64, tiles(16_384)), (224, photographs(128))):
        images = options.images * (4 if size == 64 else 1)
        sides = {
            "torch": lambda f=files, s=size: torchs(f, s, CORES),
            "ours, threads": lambda f=files, s=size: ours(f, s, threads=CORES),
            "ours, processes": lambda f=files, s=size: ours(f, s, threads=1, workers=CORES),
        }
        rates: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
        for _ in range(options.repeats):
            for side, start in sides.items():
                rates[side].append(measure(start, images))
        base = None
        print(f"{size} px from {len(files)} JPEGs of {sum(map(len, files)) / len(files) / 1e3:.0f} kB")
        for side, pairs in rates.items():
            wall, cpu = (statistics.median(values) for values in zip(*pairs, strict=True))
            base = base or (wall, cpu)
            print(f"  {side:16s} {wall:7.0f} {cpu:7.0f}   x {wall / base[0]:.2f} {cpu / base[1]:.2f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
