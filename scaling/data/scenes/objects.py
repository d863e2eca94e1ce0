"""Objects with an outline on a site: their placement, and the boxes of those that are labelled.

The classes have DOTA's names. The outline of an object is the rectangle along its direction; a storage tank, which has
no direction, has an upright square. An object is labelled, with its whole outline, if the image shows at least 0.7 of
it, and is difficult if it shows less than all; other objects are background.
"""

import math
from typing import NamedTuple

import numpy as np

from scaling.data.scenes.terrain import Layer, Site, material, unit
from scaling.data.targets import Quadrilaterals
from scaling.data.tiling import Tile, Tiling

OBJECTS = ("ship", "plane", "small-vehicle", "large-vehicle", "storage-tank", "tennis-court")
EXTENT = (90.0, 160.0)  # metres: closer than for land cover, so that a car spans several pixels

_MARGIN = 1.0  # metres around an object that are drawn with it
_CLEARANCE = 0.6  # metres of clearance on every side of a randomly placed object
_PROBES = np.linspace(-0.5, 0.5, 7, dtype=np.float32)  # points of a rectangle, at which the ground under it is checked


class Pose(NamedTuple):
    """A position and a direction: metres right of and below the centre of a site, and the unit vector ahead."""

    x: float
    y: float
    c: float
    s: float

    def at(self, ahead: float, right: float, turns: float = 0.0) -> "Pose":
        """The pose this many metres ahead and to the right, turned clockwise."""
        c, s = unit(turns)
        x, y = self.x + ahead * self.c - right * self.s, self.y + ahead * self.s + right * self.c
        return Pose(x, y, self.c * c - self.s * s, self.s * c + self.c * s)

    def axes(self, x: Layer, y: Layer) -> tuple[Layer, Layer]:
        """Metres ahead and to the right of this pose, from metres right of and below the centre of the site."""
        dx, dy = x - np.float32(self.x), y - np.float32(self.y)
        c, s = np.float32(self.c), np.float32(self.s)
        return dx * c + dy * s, dy * c - dx * s

    def corners(self, length: float, width: float) -> list[tuple[float, float]]:
        """Corners of a rectangle about the pose, clockwise on the screen from its left end."""
        around = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
        return [self.at(length * u, width * v)[:2] for u, v in around]


class Patch:
    """The pixels around an object and their coordinates: `u` metres ahead of its middle, `v` to the right."""

    def __init__(self, site: "Populated", pose: Pose, reach: float):
        rows, columns = site.near(pose.y, reach), site.near(pose.x, reach)
        self.u, self.v = pose.axes(site.x[:, columns], site.y[rows])
        self._layers = site.cover[rows, columns], site.height[rows, columns], site.shade[rows, columns]
        self._open = site.open[rows, columns]

    def box(self, u: float, v: float, length: float, width: float) -> Layer:
        """The pixels of a rectangle centred there, bool."""
        return (np.abs(self.u - np.float32(u)) < length / 2) & (np.abs(self.v - np.float32(v)) < width / 2)

    def fill(self, where: Layer, row: int, height: float | None = None) -> None:
        """Covers pixels with a material of the site, at a height above ground."""
        cover, heights, shade = self._layers
        np.copyto(cover, np.uint8(row), where=where)
        np.copyto(shade, np.float32(1), where=where)
        if height is not None:
            np.copyto(heights, np.float32(height), where=where)

    def lighten(self, where: Layer, factor: Layer | float) -> None:
        """Changes the brightness of pixels."""
        shade = self._layers[2]
        np.multiply(shade, np.asarray(factor, np.float32), out=shade, where=where)

    def take(self, length: float, width: float) -> None:
        """Marks the ground as taken, so that no other object is placed there at random."""
        self._open[self.box(0, 0, length + 2 * _CLEARANCE, width + 2 * _CLEARANCE)] = False


class Populated(Site):
    """A site with labelled objects.

    Attributes:
      open: ground on which an object may be placed at random, bool [size, size].
      outlines: four corners of every object, in metres right of and below the centre.
    """

    crowded = False

    def __init__(self, rng: np.random.Generator, size: int):
        super().__init__(rng, size, EXTENT)
        self.open = np.ones((size, size), bool)
        self.outlines: list[list[tuple[float, float]]] = []
        self._classes: list[int] = []
        self._dyes: dict[tuple[str, str, float], int] = {}

    def pose(self, spread: float, turns: float | None = None) -> Pose:
        """A random pose, at most `spread` metres off the centre along either axis, in a given or a random direction."""
        x, y = self.between(-spread, spread), self.between(-spread, spread)
        return Pose(x, y, *unit(self.between(0, 1) if turns is None else turns))

    def near(self, place: float, reach: float) -> slice:
        """The pixels of an axis within this many metres of a position."""
        scale = self.size / self.extent
        first, last = (int((place + off) * scale + self.size / 2) for off in (-reach, reach))
        return slice(min(max(first, 0), self.size), min(max(last + 1, 0), self.size))

    def row(self, cover: str, name: str, brightness: float = 1.0) -> int:
        """The palette row of a material, which is added on first use."""
        key = cover, name, brightness
        if key not in self._dyes:
            self._dyes[key] = self.add(cover, material(name)[None] * np.float32(brightness))
        return self._dyes[key]

    def put(self, kind: str, pose: Pose, length: float, width: float) -> Patch:
        """Places an object of one of OBJECTS: records its outline, takes its ground, and returns the pixels to draw it
        on, an empty patch if all are outside the image.

        Callers draw their random numbers first, so that their number does not depend on pixels.
        """
        self.outlines.append((Pose(pose.x, pose.y, 1, 0) if kind == "storage-tank" else pose).corners(length, width))
        self._classes.append(OBJECTS.index(kind))
        patch = self.patch(pose, length, width)
        patch.take(length, width)
        return patch

    def patch(self, pose: Pose, length: float, width: float) -> Patch:
        """The pixels around a rectangle."""
        return Patch(self, pose, math.sqrt(length * length + width * width) / 2 + _MARGIN)

    def free(self, pose: Pose, length: float, width: float) -> bool:
        """Whether all ground of a rectangle is open and its middle is on the site."""
        if max(abs(pose.x), abs(pose.y)) > self.extent / 2:
            return False
        u, v = _PROBES[:, None] * (length + 2 * _CLEARANCE), _PROBES * (width + 2 * _CLEARANCE)
        scale = self.size / self.extent
        x = ((u * pose.c - v * pose.s + pose.x) * scale + self.size / 2).astype(np.int64)
        y = ((u * pose.s + v * pose.c + pose.y) * scale + self.size / 2).astype(np.int64)
        return bool(self.open[np.clip(y, 0, self.size - 1), np.clip(x, 0, self.size - 1)].all())

    def objects(self) -> Quadrilaterals:
        """The labelled objects: those that the image shows enough of, by the rule of `scaling.data.tiling`."""
        scale = self.size / self.extent
        corners = (np.array(self.outlines, np.float64).reshape(-1, 4, 2) * scale + self.size / 2).astype(np.float32)
        every = Quadrilaterals.of(corners, self._classes)
        return Tiling(self.size, 0).objects(every, Tile(0, 0, self.size))[0]
