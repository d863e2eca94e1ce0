"""The ground of a rendered scene: its materials, its noise, and the `Site` that painters work on.

A site is a square of ground seen from above. Painters (`scaling.data.scenes.land_cover`) leave three layers on it: the
material of each pixel (an index into a palette of reflectances), its height, and a brightness texture. Sun, shadows
and the sensor come later (`scaling.data.scenes.source`).

Lengths are metres, so that a site looks the same at every image size. Only exactly rounded operations touch the pixels
(+, -, *, /, sqrt, comparisons, look-ups): the same seed gives the same image on every machine.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Layer = np.ndarray  # [size, size], float32 unless stated otherwise

BANDS = ("blue", "green", "red", "red_edge", "nir", "swir")

# Strength of the fine texture, then typical surface reflectance in each of BANDS. Living plants absorb red and reflect
# near infrared, water is dark beyond red, and bare ground brightens steadily towards the short-wave infrared.
MATERIALS = {
    "soil": (0.10, 0.055, 0.080, 0.105, 0.135, 0.175, 0.250),
    "dry soil": (0.10, 0.105, 0.145, 0.190, 0.230, 0.275, 0.360),
    "clay": (0.10, 0.050, 0.080, 0.150, 0.190, 0.240, 0.310),
    "crop": (0.12, 0.030, 0.080, 0.042, 0.130, 0.480, 0.200),
    "young crop": (0.12, 0.045, 0.095, 0.075, 0.150, 0.350, 0.220),
    "ripe crop": (0.10, 0.080, 0.130, 0.180, 0.240, 0.320, 0.320),
    "rapeseed": (0.12, 0.050, 0.185, 0.170, 0.270, 0.450, 0.220),
    "grass": (0.16, 0.040, 0.088, 0.062, 0.140, 0.380, 0.220),
    "dry grass": (0.16, 0.075, 0.115, 0.140, 0.190, 0.290, 0.310),
    "broadleaf": (0.30, 0.024, 0.055, 0.032, 0.100, 0.420, 0.180),
    "autumn leaf": (0.30, 0.035, 0.065, 0.080, 0.150, 0.320, 0.200),
    "conifer": (0.30, 0.020, 0.036, 0.024, 0.060, 0.260, 0.100),
    "understorey": (0.30, 0.025, 0.045, 0.040, 0.080, 0.220, 0.140),
    "deep water": (0.05, 0.046, 0.040, 0.022, 0.013, 0.007, 0.003),
    "shallow water": (0.05, 0.070, 0.085, 0.050, 0.028, 0.014, 0.005),
    "turbid water": (0.05, 0.075, 0.100, 0.090, 0.065, 0.030, 0.010),
    "algal water": (0.06, 0.035, 0.060, 0.032, 0.040, 0.030, 0.008),
    "foam": (0.10, 0.350, 0.360, 0.350, 0.330, 0.300, 0.120),
    "sand": (0.08, 0.170, 0.225, 0.280, 0.310, 0.340, 0.400),
    "gravel": (0.12, 0.130, 0.155, 0.175, 0.190, 0.210, 0.260),
    "asphalt": (0.06, 0.070, 0.077, 0.082, 0.088, 0.095, 0.120),
    "old asphalt": (0.06, 0.110, 0.122, 0.130, 0.137, 0.145, 0.170),
    "concrete": (0.06, 0.180, 0.200, 0.215, 0.225, 0.240, 0.260),
    "tiles": (0.08, 0.062, 0.085, 0.165, 0.205, 0.245, 0.290),
    "brown tiles": (0.08, 0.065, 0.080, 0.110, 0.140, 0.165, 0.210),
    "slate": (0.06, 0.078, 0.082, 0.086, 0.090, 0.095, 0.110),
    "metal": (0.03, 0.300, 0.310, 0.315, 0.320, 0.330, 0.310),
    "membrane": (0.03, 0.420, 0.440, 0.450, 0.450, 0.440, 0.380),
    "bitumen": (0.05, 0.095, 0.100, 0.105, 0.110, 0.115, 0.140),
    "blue sheet": (0.03, 0.200, 0.165, 0.110, 0.120, 0.150, 0.200),
    "car": (0.05, 0.260, 0.270, 0.270, 0.280, 0.280, 0.240),
    "white paint": (0.03, 0.480, 0.490, 0.490, 0.480, 0.480, 0.400),
    "silver paint": (0.03, 0.250, 0.260, 0.260, 0.260, 0.270, 0.240),
    "grey paint": (0.03, 0.130, 0.135, 0.140, 0.140, 0.145, 0.150),
    "black paint": (0.03, 0.025, 0.025, 0.027, 0.028, 0.030, 0.030),
    "red paint": (0.03, 0.040, 0.045, 0.280, 0.340, 0.380, 0.330),
    "blue paint": (0.03, 0.270, 0.120, 0.050, 0.060, 0.110, 0.120),
    "green paint": (0.04, 0.070, 0.170, 0.060, 0.090, 0.200, 0.160),
    "yellow paint": (0.03, 0.060, 0.330, 0.420, 0.440, 0.450, 0.380),
    "glass": (0.02, 0.045, 0.042, 0.040, 0.038, 0.036, 0.030),
    "rust": (0.10, 0.055, 0.080, 0.170, 0.220, 0.260, 0.290),
    "wood": (0.10, 0.100, 0.150, 0.205, 0.245, 0.290, 0.330),
}
_TABLE = {name: np.array(values, np.float32) for name, values in MATERIALS.items()}

# Land cover of the ground, whatever its material: the classes of a mask.
COVERS = ("bare ground", "grass", "field", "trees", "water", "paving", "building", "vehicle")

TILE = 1024  # pixels of a noise tile; a power of two, it wraps around
# Longest and shortest wavelength of a noise tile in pixels, and the amplitude of an octave relative to the longer one.
NOISES = {"gentle": (32, 16, 0.4), "smooth": (32, 2, 0.5), "rough": (16, 2, 0.9)}
_PICKS, _LOTS = 8, 512  # independent random numbers per cell, and distinct cells, of one site


@functools.cache
def noise_tile(kind: str) -> Layer:
    """Fractal value noise of one of NOISES, [TILE, TILE], zero mean and unit deviation."""
    wavelength, shortest, gain = NOISES[kind]
    rng = np.random.Generator(np.random.PCG64(list(NOISES).index(kind)))
    total, amplitude = np.zeros((TILE, TILE), np.float32), 1.0
    while wavelength >= shortest:
        total += amplitude * _octave(rng, TILE // wavelength)
        wavelength, amplitude = wavelength // 2, amplitude * gain
    # Rounded, because the order of a long sum is the machine's choice.
    mean, deviation = round(float(total.mean(dtype=np.float64)), 4), round(float(total.std(dtype=np.float64)), 4)
    return (total - mean) / deviation


def _octave(rng: np.random.Generator, cells: int) -> Layer:
    """Random values on a periodic grid of `cells` x `cells`, interpolated smoothly to a tile."""
    grid = rng.random((cells, cells), np.float32)
    where = np.arange(TILE, dtype=np.float32) * (cells / TILE)
    low = where.astype(np.int64)
    weight = where - np.floor(where)
    weight = weight * weight * (3 - 2 * weight)
    rows = _lerp(grid[low], grid[(low + 1) % cells], weight[:, None])
    return _lerp(rows[:, low], rows[:, (low + 1) % cells], weight)


def _lerp(a: np.ndarray, b: np.ndarray, t: np.ndarray | float) -> np.ndarray:
    return a + (b - a) * t


def material(name: str) -> np.ndarray:
    """Texture strength and reflectances of a material, [1 + bands]."""
    return _TABLE[name]


def blend(a: str, b: str, t: float) -> np.ndarray:
    """A material between two, `a` at t = 0 and `b` at t = 1, [1 + bands]."""
    return _lerp(_TABLE[a], _TABLE[b], t)


def ramp(a: np.ndarray, b: np.ndarray, steps: int = 12) -> np.ndarray:
    """Materials from `a` to `b` in equal steps, [steps, 1 + bands]."""
    return _lerp(a, b, (np.arange(steps, dtype=np.float32) / (steps - 1))[:, None])


def unit(turns: float) -> tuple[float, float]:
    """Cosine and sine of an angle in turns, rounded to where every maths library agrees."""
    return round(math.cos(math.tau * turns), 5), round(math.sin(math.tau * turns), 5)


def wave(phase: Layer) -> Layer:
    """Triangle wave of period 1 in [0, 1]."""
    return 2 * np.abs(phase - np.rint(phase))


class Site:
    """A square of ground and the layers that painters leave on it.

    Attributes:
      rng: the scene's own random numbers; painters draw as many at every image size.
      size, extent: pixels and metres along each side; the metres are drawn between the two of an `extent` given.
      x, y: metres right of and below the centre, [1, size] and [size, 1].
      lushness: the season, 0 (dry, bare) to 1 (everything grows).
      cover: index of the palette row of each pixel, uint8.
      height: metres above ground.
      shade: brightness texture around 1.
    """

    crowded = True  # whether painters of land cover add vehicles and tanks, which have no outline

    def __init__(self, rng: np.random.Generator, size: int, extent: tuple[float, float] = (190, 330)):
        self.rng, self.size = rng, size
        self.extent = self.between(*extent)
        axis = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) * self.extent
        self.x, self.y = axis[None, :], axis[:, None]
        self.lushness = self.between(0, 1)
        self.cover = np.zeros((size, size), np.uint8)
        self.height = np.zeros((size, size), np.float32)
        self.shade = np.ones((size, size), np.float32)
        self._palette: list[np.ndarray] = []
        self._covers: list[int] = []  # index into COVERS of each palette row
        self._rows = 0
        self._picks = rng.random((_PICKS, _LOTS), np.float32)

    def between(self, low: float, high: float) -> float:
        """A uniform random number in [low, high)."""
        return low + (high - low) * self.rng.random()

    def below(self, n: int) -> int:
        """A random integer in [0, n)."""
        return int(self.rng.random() * n)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.rng.random() < probability

    def choose(self, *options: Any) -> Any:
        """One of the options, at random."""
        return options[self.below(len(options))]

    def axes(self, turns: float | None = None) -> tuple[Layer, Layer]:
        """Coordinates in metres along and across a direction (a random one by default), about the centre."""
        c, s = unit(self.rng.random() if turns is None else turns)
        return self.x * c + self.y * s, self.y * c - self.x * s

    def frame(self, turns: float | None = None) -> tuple[Layer, Layer]:
        """Coordinates as by `axes`, about a random origin far off: for repeating patterns."""
        u, v = self.axes(turns)
        return u + self.between(0, 4096), v + self.between(0, 4096)

    def noise(self, wavelength: float, kind: str = "smooth") -> Layer:
        """Hills of a longest wavelength in metres, `smooth` or `gentle`; zero mean, unit deviation."""
        step = NOISES[kind][0] / wavelength
        span = int(self.extent * step) + 3
        left, top = self.below(TILE - span + 1), self.below(TILE - span + 1)
        where = (self.x[0] + self.extent / 2) * step
        low = where.astype(np.int64)
        weight = where - np.floor(where)
        part = noise_tile(kind)[top : top + span, left : left + span]
        rows = _lerp(part[low], part[low + 1], weight[:, None])
        return _lerp(rows.take(low, 1), rows.take(low + 1, 1), weight)

    def texture(self, wavelength: float) -> Layer:
        """Rough fine-grained noise of a longest wavelength in metres; zero mean, unit deviation."""
        step = NOISES["rough"][0] / wavelength
        index = ((self.x[0] + self.extent) * step).astype(np.int64) % TILE
        start = index + self.below(TILE * TILE)
        return noise_tile("rough").take(index[:, None] * TILE + start, mode="wrap")

    def bend(self, u: Layer, wavelength: float) -> Layer:
        """A gentle random curve over the coordinate `u`; zero mean, unit deviation."""
        line = noise_tile("gentle")[self.below(TILE)]
        where = u * (NOISES["gentle"][0] / wavelength)
        low = np.floor(where)
        index = low.astype(np.int64) + self.below(TILE)
        return _lerp(line.take(index, mode="wrap"), line.take(index + 1, mode="wrap"), where - low)

    def pick(self, cells: np.ndarray, which: int) -> Layer:
        """The `which`-th random number in [0, 1) of each cell."""
        return self._picks[which].take(cells, mode="clip")  # clip: the fastest, no cell is outside

    def paint(self, cover: str, where: Layer | bool, colour: np.ndarray) -> None:
        """Covers the pixels of a bool mask with one material [1 + bands]; `cover` is one of COVERS."""
        np.copyto(self.cover, np.uint8(self.add(cover, colour[None])), where=where)

    def paint_each(
        self, cover: str, where: Layer | bool, choice: Layer, colours: np.ndarray | Sequence[np.ndarray]
    ) -> None:
        """Covers the pixels of a bool mask with the material that `choice` in [0, 1] points to, of several."""
        colours = np.asarray(colours)
        index = np.minimum(np.maximum(choice * len(colours), 0), len(colours) - 1).astype(np.uint8)
        index += np.uint8(self.add(cover, colours))
        np.copyto(self.cover, index, where=where)

    def clear(self, where: Layer) -> None:
        """Levels the pixels of a bool mask: height and texture are removed."""
        np.copyto(self.height, np.float32(0), where=where)
        np.copyto(self.shade, np.float32(1), where=where)

    def add(self, cover: str, colours: np.ndarray) -> int:
        """Adds materials [n, 1 + bands] to the palette; returns the index of the first."""
        first, self._rows = self._rows, self._rows + len(colours)
        if self._rows > 256:
            raise ValueError("a site holds at most 256 materials")
        self._palette.append(colours)
        self._covers += [COVERS.index(cover)] * len(colours)
        return first

    def covers(self) -> np.ndarray:
        """Cover of every pixel, an index into COVERS, uint8 [size, size]."""
        return np.array(self._covers, np.uint8)[self.cover]

    def palette(self) -> np.ndarray:
        """All materials painted so far, [materials, 1 + bands]."""
        return np.concatenate(self._palette)

    def raise_to(self, where: Layer, height: Layer | float) -> None:
        """Raises the pixels of a bool mask to at least `height` metres."""
        np.maximum(self.height, where * np.asarray(height, np.float32), out=self.height)


def cell_of(i: Layer, j: Layer) -> np.ndarray:
    """The cell of whole-number coordinates, an index for `Site.pick`."""
    return (i.astype(np.int64) * 73 + j.astype(np.int64) * 179) & (_LOTS - 1)
