"""Small image sets that the tests of this folder share."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).parents[3] / "shared" / "data"


def shared(path: str) -> Path:
    """A file of the real data beside the repository, or a skip."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"no real data at ../shared/data/{path}")
    return found


def jpeg(image: np.ndarray, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def smooth(seed: int, height: int = 40, width: int = 48) -> np.ndarray:
    """A colour image [height, width, 3] with a gradient, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def class_folders(root: Path, per_class: int = 10, classes: tuple[str, ...] = ("forest", "river")) -> Path:
    """root/class/000.jpg …, images of 40 x 48 pixels."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            (root / name / f"{i:03d}.jpg").write_bytes(jpeg(smooth(label * 1000 + i)))
    return root


def truncate(file: Path) -> None:
    """Cuts a file in half."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
