"""Outcomes: right or wrong, one bit per test image, from which a score can be recomputed, stored in its row.

A row of a score has `outcomes` of the form `1400:BASE64`: the number of test images and their bits, the first image in
the highest bit of the first byte. One further row for the test images, with probe `labels`, has `1400u1:BASE64`: their
classes, counted from 0, as little-endian unsigned integers of that many bytes. 1,400 images take 240 characters. Rows
of one data set, split and study have the images in the same order.
"""

import base64
import dataclasses
import re
from typing import Any

import numpy as np

from scaling.core.errors import UserError
from scaling.core.rows import LABELS, Row
from scaling.evaluation.scores import Predictions

_FORM = re.compile(r"(\d+)(u[124])?:([A-Za-z0-9+/]*=*)")


def outcomes_of(predictions: Any) -> str:
    """The bits of predictions; empty for predictions that are not simply right or wrong, such as several labels or
    pixels.
    """
    if not isinstance(predictions, Predictions) or predictions.truth.ndim != 1:
        return ""
    right = predictions.predicted == predictions.truth
    return f"{len(right)}:{base64.b64encode(np.packbits(right).tobytes()).decode()}"


def labels_row(row: Row, truth: np.ndarray) -> list[Row]:
    """The row with the classes of the test images of another row, the same for every cut, as a list; empty if an image
    can have several labels [m, L].
    """
    if truth.ndim != 1:
        return []
    classes, labels = np.unique(truth, return_inverse=True)
    size = 1 if len(classes) <= 256 else 2 if len(classes) <= 65536 else 4
    written = base64.b64encode(labels.astype(f"<u{size}").tobytes()).decode()
    of_images: dict[str, Any] = {
        "params": 0, "flops": 0, "compute": 1.0, "compute_published": 1.0, "width_ratio": 1.0, "depth_ratio": 1.0,
        "mode": "", "ordering": "", "recovery": "", "seed": 0, "low": None, "high": None,
    }  # fmt: skip
    found = dataclasses.replace(row, **of_images, probe=LABELS, metric="classes", value=float(len(classes)))
    return [dataclasses.replace(found, outcomes=f"{len(labels)}u{size}:{written}")]


def unpacked(outcomes: str) -> np.ndarray:
    """Bits [m], bool, or integer classes [m].

    Raises:
      UserError: text of another form.
    """
    match = _FORM.fullmatch(outcomes)
    count, kind = (int(match[1]), match[2]) if match else (0, None)
    try:
        raw = base64.b64decode(match[3] if match else "-", validate=True)
    except ValueError:
        raw = b""
    length = count * int(kind[1]) if kind else -(-count // 8)
    if not match or len(raw) != length:
        raise UserError(f"outcomes={outcomes[:40]!r}: must be COUNT:BASE64 of COUNT bits, or COUNTu1:BASE64 of labels")
    if kind:
        return np.frombuffer(raw, f"<{kind}").astype(np.int64)
    return np.unpackbits(np.frombuffer(raw, np.uint8), count=count).astype(bool)


def predictions_of(outcomes: str, labels: str) -> Predictions:
    """Predictions with exactly the scores of those that the bits were made from: the class, or -1 if wrong.

    Raises:
      UserError: bits and labels belong to different images.
    """
    right, truth = unpacked(outcomes), unpacked(labels)
    if right.shape != truth.shape:
        raise UserError(
            f"outcomes of {len(right):,} images and labels of {len(truth):,}: the rows are of different test images"
        )
    return Predictions(np.where(right, truth, -1), truth)
