"""A newcomer's material: a pretrained run, a folder of images, and the code in the documentation."""

import dataclasses
import re
from pathlib import Path

import numpy as np
from PIL import Image

from scaling.data.config import DataConfig
from scaling.training.config import TrainConfig
from tests.encoders.examples import small_encoder

ROOT = Path(__file__).resolve().parents[1]


def code_blocks(page: str, language: str = "python") -> list[str]:
    """The fenced blocks of a page of the checkout, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def tiny_run(folder: Path, name: str = "tiny", **fields: int) -> None:
    """Makes runs/NAME: an encoder of 16 x 16 colours, as if it were pretrained for two steps.

    Args:
      folder: parent of `runs`.
      name: name of the run.
      fields: fields of the architecture that differ from `small_encoder`.
    """
    data = DataConfig(source="scenes?size=16&count=64", mean=(100.0,) * 3, std=(50.0,) * 3)
    encoder = dataclasses.replace(small_encoder(**fields), train=TrainConfig(data=data, batch_size=16), step=2)
    encoder.save(folder / "runs" / name)


def image_folder(folder: Path, count: int = 40) -> None:
    """Makes tiles/CLASS/NUMBER.png of two classes."""
    random = np.random.default_rng(0)
    for i in range(count):
        file = folder / "tiles" / ("field", "water")[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(100 * (i % 2), 256, (20, 20, 3), np.uint8)).save(file)
