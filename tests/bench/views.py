"""Cost of changing both views of an image, relative to decoding it and cropping both.

    python -m tests.bench.views [--repeats=100]

Milliseconds of processor time per image, in one thread: images of three colours from JPEG (128 pixels for crops of 64,
256 for 224), and of thirteen bands from a deflated GeoTIFF of 256 pixels.
"""

import argparse
import io
import time
from collections.abc import Callable

import numpy as np
import tifffile
from PIL import Image

from scaling.data.images import decode
from scaling.data.resample import resample
from scaling.data.transforms import stream
from scaling.data.view_changes import byol, byol_bands


def milliseconds(function: Callable[[int], object], repeats: int) -> float:
    function(0)
    began = time.thread_time()
    for i in range(repeats):
        function(i)
    return 1e3 * (time.thread_time() - began) / repeats


def jpeg(side: int) -> bytes:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((side, side))
    noisy = np.asarray(coarse) + rng.integers(-20, 20, (side, side, 3))
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def geotiff(side: int) -> bytes:
    values = np.random.default_rng(0).normal(3000, 800, (side, side, 13)).clip(0).astype(np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, compression="deflate", photometric="minisblack", planarconfig="contig")
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=100)
    repeats = parser.parse_args().repeats
    cases = (
        ("byol", byol, jpeg, 128, 64),
        ("byol", byol, jpeg, 256, 224),
        ("byol_bands", byol_bands, geotiff, 256, 224),
    )
    for name, change, encoded, side, size in cases:
        data = encoded(side)
        image = decode(data, "image")
        out = np.empty((size, size, image.shape[2]), np.uint8 if image.dtype == np.uint8 else np.float32)
        decoding = milliseconds(lambda i, data=data: decode(data, "image"), repeats)
        cropping = milliseconds(lambda i, image=image, out=out: resample(image, (3, 3, 120, 120), out), repeats)
        crop = out.copy()

        def both(i: int, change=change, out=out, crop=crop) -> None:
            for view in range(2):
                out[...] = crop
                change(out, stream(0, i, view), view)

        changing = milliseconds(both, repeats)
        found = f"decoding {decoding:6.2f}, two crops {2 * cropping:6.2f}, two changes {changing:6.2f}"
        print(f"{name:10} {size:3} px: {found}")


if __name__ == "__main__":
    main()
