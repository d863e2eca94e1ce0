"""Objects with an outline on a site: where they stand, and which of them are to be found.

The classes have the names that DOTA gives them. The outline of an object is the rectangle along it, whatever direction
it has; of a storage tank, which has none, the upright square. An object is kept where the image shows at least 0.7 of
its outline, whole, and is difficult where that is not all; of others what is seen is background.
"""

import math
from typing import NamedTuple

import numpy as np

from scaling.data.scenes.terrain import Layer, Site, material, unit
from scaling.data.targets import Quadrilaterals
from scaling.data.tiling import Tile, Tiling

OBJECTS = ("ship", "plane", "small-vehicle", "large-vehicle", "storage-tank", "tennis-court")
EXTENT = (90.0, 160.0)  # metres: closer than land cover is seen, so that a car has some pixels

_MARGIN = 1.0  # metres around an object that are drawn with it
_CLEARANCE = 0.6  # metres around an object on which no other is put at random
_PROBES = np.linspace(-0.5, 0.5, 7, dtype=np.float32)  # of a rectangle, where the ground under it is looked at


class Pose(NamedTuple):
    """A place and a direction: metres right of and below the centre of a site, and the unit vector ahead."""

    x: float
    y: float
    c: float
    s: float

    def at(self, ahead: float, right: float, turns: float = 0.0) -> "Pose":
        """Another one so many metres ahead and to the right of this, turned clockwise."""
        c, s = unit(turns)
        x, y = self.x + ahead * self.c - right * self.s, self.y + ahead * self.s + right * self.c
        return Pose(x, y, self.c * c - self.s * s, self.s * c + self.c * s)

    def axes(self, x: Layer, y: Layer) -> tuple[Layer, Layer]:
        """Metres ahead and to the right of it, of metres right of and below the centre of the site."""
        dx, dy = x - np.float32(self.x), y - np.float32(self.y)
        c, s = np.float32(self.c), np.float32(self.s)
        return dx * c + dy * s, dy * c - dx * s

    def corners(self, length: float, width: float) -> list[tuple[float, float]]:
        """Of the rectangle about it, clockwise on the screen from its left end."""
        around = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
        return [self.at(length * u, width * v)[:2] for u, v in around]


class Patch:
    """The pixels around an object, and where they lie: `u` metres ahead of its middle, `v` to the right."""

    def __init__(self, site: "Populated", pose: Pose, reach: float):
        rows, columns = site.near(pose.y, reach), site.near(pose.x, reach)
        self.u, self.v = pose.axes(site.x[:, columns], site.y[rows])
        self._layers = site.cover[rows, columns], site.height[rows, columns], site.shade[rows, columns]
        self._open = site.open[rows, columns]

    def box(self, u: float, v: float, length: float, width: float) -> Layer:
        """The pixels of a rectangle with its middle there, bool."""
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
        """Nothing else is put there at random."""
        self._open[self.box(0, 0, length + 2 * _CLEARANCE, width + 2 * _CLEARANCE)] = False


class Populated(Site):
    """A site on which objects stand that are to be found.

    Attributes:
      open: where an object may be put at random, bool [size, size].
      outlines: of all objects, four corners each in metres right of and below the centre.
    """

    crowded = False

    def __init__(self, rng: np.random.Generator, size: int):
        super().__init__(rng, size, EXTENT)
        self.open = np.ones((size, size), bool)
        self.outlines: list[list[tuple[float, float]]] = []
        self._classes: list[int] = []
        self._dyes: dict[tuple[str, str, float], int] = {}

    def pose(self, spread: float, turns: float | None = None) -> Pose:
        """A random one, at most `spread` metres off the centre along either axis; of a direction or a random one."""
        x, y = self.between(-spread, spread), self.between(-spread, spread)
        return Pose(x, y, *unit(self.between(0, 1) if turns is None else turns))

    def near(self, place: float, reach: float) -> slice:
        """The pixels of an axis within so many metres of a place."""
        scale = self.size / self.extent
        first, last = (int((place + off) * scale + self.size / 2) for off in (-reach, reach))
        return slice(min(max(first, 0), self.size), min(max(last + 1, 0), self.size))

    def row(self, cover: str, name: str, brightness: float = 1.0) -> int:
        """The row of the palette that has a material, added when it is asked for first."""
        key = cover, name, brightness
        if key not in self._dyes:
            self._dyes[key] = self.add(cover, material(name)[None] * np.float32(brightness))
        return self._dyes[key]

    def put(self, kind: str, pose: Pose, length: float, width: float) -> Patch:
        """An object of one of OBJECTS: notes its outline, and gives the pixels to draw it on, none if all lie outside.

        Who draws takes random numbers before: how many are taken depends on no pixel.
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
        """Whether all of a rectangle, and its middle within the site, is open."""
        if max(abs(pose.x), abs(pose.y)) > self.extent / 2:
            return False
        u, v = _PROBES[:, None] * (length + 2 * _CLEARANCE), _PROBES * (width + 2 * _CLEARANCE)
        scale = self.size / self.extent
        x = ((u * pose.c - v * pose.s + pose.x) * scale + self.size / 2).astype(np.int64)
        y = ((u * pose.s + v * pose.c + pose.y) * scale + self.size / 2).astype(np.int64)
        return bool(self.open[np.clip(y, 0, self.size - 1), np.clip(x, 0, self.size - 1)].all())

    def objects(self) -> Quadrilaterals:
        """Those of which the image shows enough, by the rule of tiles: see `scaling.data.tiling`."""
        scale = self.size / self.extent
        corners = (np.array(self.outlines, np.float64).reshape(-1, 4, 2) * scale + self.size / 2).astype(np.float32)
        every = Quadrilaterals.of(corners, self._classes)
        return Tiling(self.size, 0).objects(every, Tile(0, 0, self.size))[0]
