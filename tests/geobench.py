"""EuroSAT from `../shared/data`, written in GEO-Bench's layout of m-eurosat.

PYTHONPATH=. python -m tests.geobench EUROSAT FOLDER [IMAGES A CLASS]     # of each class, in each of three splits
"""

import csv
import io
import json
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

BANDS = ("04 - Red", "03 - Green", "02 - Blue")
# Reflectance x 10,000 of one step of 8 bits: pictures of EuroSAT were stretched from 0 to about 2,750.
STEP = 2750 / 255


def write_eurosat(eurosat: Path, folder: Path, each: int) -> Path:
    """Writes a folder with the three visible bands of so many images a class and split: training images are `train` and
    `valid`, test images are `test`.
    """
    with (eurosat / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in rows})
    splits: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    labels: dict[str, list[str]] = {str(i): [] for i in range(len(classes))}
    pixels = []
    folder.mkdir(parents=True)
    with zipfile.ZipFile(eurosat / "images.zip") as archive:
        for i, label in enumerate(classes):
            of = {s: [r["name"] for r in rows if (r["label"], r["split"]) == (label, s)] for s in ("train", "test")}
            taken = {"train": of["train"][:each], "valid": of["train"][each : 2 * each], "test": of["test"][:each]}
            for split, names in taken.items():
                for name in names:
                    sample = Path(name).stem
                    image = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
                    image = np.round(image * STEP).astype(np.int16)
                    with h5py.File(folder / f"{sample}.hdf5", "w") as stored:
                        for b, band in enumerate(BANDS):
                            stored.create_dataset(band, data=image[..., b])
                    splits[split].append(sample)
                    labels[str(i)].append(sample)
                    pixels += [image] if split == "train" else []
    all_ = np.concatenate([image.reshape(-1, 3) for image in pixels]).astype(np.float64)
    stats = {band: {"mean": all_[:, b].mean(), "std": all_[:, b].std()} for b, band in enumerate(BANDS)}
    for file, content in (
        ("default_partition.json", splits),
        ("label_map.json", labels),
        ("band_stats.json", stats),
    ):
        (folder / file).write_text(json.dumps(content))
    return folder


if __name__ == "__main__":
    write_eurosat(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 100)
