"""Objects and detections in DOTA's text format: one object per line, corners in pixels of the whole image.

    labelTxt/<image>.txt       x1 y1 x2 y2 x3 y3 x4 y4 class [difficult]     after up to a few lines `name:value`
    Task1_<class>.txt          image score x1 y1 x2 y2 x3 y3 x4 y4

No line is skipped silently: a line of any other form is an error with its file and line number.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

import numpy as np

from scaling.core.errors import UserError

LABEL = "x1 y1 x2 y2 x3 y3 x4 y4 class [difficult]"
DETECTION = "image score x1 y1 x2 y2 x3 y3 x4 y4"

_HEADER = re.compile(r"[A-Za-z][\w ]*:")  # imagesource:GoogleEarth, gsd:0.12, acquisition dates:…


class Objects(NamedTuple):
    """Objects of one image, in the order of its file.

    Attributes:
      corners: float64 [n, 4, 2] of (x, y) in pixels of the image.
      names: class names [n].
      difficult: bool [n].
    """

    corners: np.ndarray
    names: list[str]
    difficult: np.ndarray

    @classmethod
    def of(cls, corners: list[list[float]], names: list[str], difficult: list[bool]) -> "Objects":
        """Objects from lists, which may be empty."""
        return cls(np.array(corners, np.float64).reshape(-1, 4, 2), names, np.array(difficult, bool))


class Found(NamedTuple):
    """Detections of one class, in the order of their file.

    Attributes:
      images: image names [n].
      scores: float64 [n].
      corners: float64 [n, 4, 2] of (x, y) in pixels of the image.
    """

    images: list[str]
    scores: np.ndarray
    corners: np.ndarray


def parse_objects(text: str, where: str) -> Objects:
    """Reads the objects of one image; none in an empty file.

    Args:
      text: content of the file.
      where: name of the file, for messages.

    Raises:
      UserError: a line is neither an object nor a header, or a number in it cannot be read.
    """
    corners, names, difficult = [], [], []
    for place, fields in lines_of(text, where):
        if _HEADER.match(" ".join(fields)):
            continue
        if len(fields) not in (9, 10):
            unfit(place, fields, LABEL)
        if len(fields) == 10 and not fields[9].isdecimal():
            raise UserError(f"{place}: {fields[9]!r} must be 0 or 1, for a difficult object; correct it")
        corners.append([number_in(field, place) for field in fields[:8]])
        names.append(fields[8])
        difficult.append(len(fields) == 10 and float(fields[9]) > 0)
        _is_a_name(fields[8], place, LABEL)
    return Objects.of(corners, names, difficult)


def parse_detections(text: str, where: str) -> Found:
    """Reads the detections of one class; none in an empty file. For arguments and errors see `parse_objects`."""
    images, scores, corners = [], [], []
    for place, fields in lines_of(text, where):
        if len(fields) != 10:
            unfit(place, fields, DETECTION)
        images.append(fields[0])
        scores.append(number_in(fields[1], place))
        corners.append([number_in(field, place) for field in fields[2:]])
    return Found(images, np.array(scores, np.float64), np.array(corners, np.float64).reshape(-1, 4, 2))


def lines_of(text: str, where: str) -> Iterator[tuple[str, list[str]]]:
    """The place and the fields of every line, without empty ones."""
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if fields := line.split():
            yield f"{where}:{number}", fields


def number_in(field: str, place: str) -> float:
    """A finite number; UserError with its place for anything else."""
    try:
        value = float(field)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{place}: {field!r} must be a number; correct the line")
    return value


def _is_a_name(field: str, place: str, form: str) -> None:
    try:
        float(field)
    except ValueError:
        return
    raise UserError(f"{place}: the class is the number {field}; a line must be: {form}")


def unfit(place: str, fields: list[str], form: str, as_angle: tuple[int, ...] = (6, 7)) -> NoReturn:
    """Raises a UserError for a line with the wrong number of fields. `as_angle` fields suggest a box with an angle."""
    angle = "; a middle, two sides and an angle? Write the four corners" if len(fields) in as_angle else ""
    raise UserError(f"{place}: {len(fields)} fields; a line must be: {form}{angle}")
