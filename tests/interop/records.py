"""What tests/interop/record.py has kept of the published implementations: tiny models with random weights."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from scaling.interop.acquisition import Acquisition

FOLDER = Path(__file__).parent / "recorded"
RECORDS = {path.stem: path for path in sorted(FOLDER.glob("*.npz"))}
GIVEN = {field.name for field in dataclasses.fields(Acquisition)}


def arrays_of(record):
    """The arrays of the file of weights."""
    keys = [key for key in record.files if key.startswith("file/")]
    return {key.removeprefix("file/"): np.ascontiguousarray(record[key]) for key in keys}


def options_of(record):
    """How the file is imported, by the names of the flags."""
    return json.loads(str(record["about"]))["options"]


def acquisition(record):
    """What is said of the images, and the other options of the import."""
    options = {name: tuple(x) if isinstance(x, list) else x for name, x in options_of(record).items()}
    given = {name: options.pop(name) for name in GIVEN & options.keys()}
    return Acquisition(**given), options
