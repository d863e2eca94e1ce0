"""Objects as seen from above: each function draws one on a populated site. Sizes are metres and typical.

Heights are drawn too: sun and shadow come with the rest of the site.
"""

import numpy as np

from scaling.data.scenes.objects import Patch, Populated, Pose
from scaling.data.scenes.terrain import Layer

_PAINTS = ("white", "white", "silver", "silver", "grey", "grey", "black", "black", "red", "blue", "green", "yellow")


def small_vehicle(site: Populated, pose: Pose) -> None:
    """A car or a van, its nose ahead."""
    length, width = site.between(3.9, 5.2), site.between(1.75, 2.05)
    paint, light, van = f"{site.choose(*_PAINTS)} paint", site.choose(0.7, 0.85, 1.0), site.chance(0.15)
    patch = site.put("small-vehicle", pose, length, width)
    body, glass = site.row("vehicle", paint, light), site.row("vehicle", "glass")
    patch.fill(patch.box(0, 0, length, width), body, 1.0)
    if van:
        patch.fill(patch.box(-0.08 * length, 0, 0.84 * length, width), body, 2.0)
        patch.fill(patch.box(0.38 * length, 0, 0.1 * length, 0.8 * width), glass, 1.6)
        return
    patch.fill(patch.box(-0.06 * length, 0, 0.52 * length, 0.86 * width), glass, 1.3)
    patch.fill(patch.box(-0.08 * length, 0, 0.3 * length, 0.84 * width), body, 1.5)


def large_vehicle(site: Populated, pose: Pose) -> None:
    """A lorry with a trailer, a lorry, or a bus, its nose ahead."""
    kind = site.choose("trailer", "trailer", "lorry", "bus")
    length = {"trailer": site.between(13, 18), "lorry": site.between(7.5, 11), "bus": site.between(10.5, 13)}[kind]
    width, cab, load = 2.6, site.choose(*_PAINTS), site.choose("white", "white", "silver", "grey", "red", "blue")
    patch = site.put("large-vehicle", pose, length, width)
    glass, front = site.row("vehicle", "glass"), site.row("vehicle", f"{cab} paint")
    patch.fill(patch.box(0, 0, length, width), glass if kind != "bus" else front, 1.2)
    if kind == "bus":
        patch.fill(patch.box(0, 0, length, 0.9 * width), front, 3.1)
        for at in (-0.25, 0.2):
            patch.fill(patch.box(at * length, 0, 1.8, 1.2), site.row("vehicle", "grey paint"), 3.4)
        patch.fill(patch.box(length / 2 - 0.4, 0, 0.8, 0.9 * width), glass, 2.6)
        return
    patch.fill(patch.box(length / 2 - 1.1, 0, 2.2, 0.96 * width), front, 2.8)
    patch.fill(patch.box(length / 2 - 0.3, 0, 0.6, 0.8 * width), glass, 2.0)
    box = length - 2.9
    patch.fill(patch.box((box - length) / 2, 0, box, width), site.row("vehicle", f"{load} paint", 0.9), 3.8)


def plane(site: Populated, pose: Pose, length: float) -> float:
    """An aircraft of this length in metres, its nose ahead: swept wings and engines from 18 m on. Returns its span."""
    jet = length > 18
    span = length * (site.between(0.86, 1.04) if jet else site.between(1.15, 1.45))
    paint, tail = site.choose("white", "white", "silver", "grey"), site.choose(*_PAINTS)
    four = jet and length > 36 and site.chance(0.5)
    patch = site.put("plane", pose, length, span)
    body, wing = site.row("vehicle", f"{paint} paint"), site.row("vehicle", f"{paint} paint", 0.8)
    u, aside = patch.u / np.float32(length), np.abs(patch.v) / np.float32(length)
    if jet:
        wings = _wing(u, aside, 0.14, 0.55, 0.20, 0.05, span / length / 2)
        rudders = _wing(u, aside, -0.37, 0.6, 0.10, 0.04, 0.19)
        for at in (0.3, 0.6)[: 2 if four else 1]:
            side, nose = at * span / length / 2, 0.14 - 0.55 * at * span / length / 2
            engine = (np.abs(aside - np.float32(side)) < 0.022) & (np.abs(u - np.float32(nose)) < 0.045)
            patch.fill(engine, site.row("vehicle", "grey paint"), 0.06 * length)
    else:
        wings = _wing(u, aside, 0.22, 0.02, 0.17, 0.12, span / length / 2)
        rudders = _wing(u, aside, -0.38, 0.05, 0.11, 0.08, 0.19)
    patch.fill(wings | rudders, wing, 0.09 * length)
    patch.fill(_fuselage(u, aside, 0.055 if jet else 0.07), body, 0.13 * length)
    patch.fill((aside < 0.014) & (u < -0.34) & (u > -0.5), site.row("vehicle", f"{tail} paint"), 0.18 * length)
    return span


def _wing(u: Layer, aside: Layer, root: float, sweep: float, chord: float, tip: float, reach: float) -> Layer:
    """Both wings: the leading edge begins at `root` and sweeps back by `sweep`; chords at root and tip; half the span.

    All lengths are in units of the aircraft's length.
    """
    front = np.float32(root) - aside * np.float32(sweep)
    depth = np.float32(chord) - aside * np.float32((chord - tip) / reach)
    return (u < front) & (u > np.maximum(front - depth, -0.5)) & (aside < reach)


def _fuselage(u: Layer, aside: Layer, half: float) -> Layer:
    nose = np.maximum((u - np.float32(0.34)) / np.float32(0.16), 0)
    tail = np.maximum((np.float32(-0.2) - u) / np.float32(0.3), 0)
    return (aside < np.float32(half) * (1 - nose * nose) * (1 - np.float32(0.75) * tail)) & (np.abs(u) < 0.5)


def ship(site: Populated, pose: Pose, length: float, wake: bool = False) -> float:
    """A boat, a barge or a ship of this length in metres, its bow ahead; `wake` if it moves. Returns its width."""
    boat = length < 17
    width = length * (site.between(0.28, 0.36) if boat else site.between(0.16, 0.24))
    hull = site.choose("white", "white", "blue", "silver") if boat else site.choose("red", "black", "blue", "green")
    deck = (
        site.choose("wood", "white paint", "blue paint", "glass") if boat else site.choose("rust", "wood", "grey paint")
    )
    bow, load, loads = site.between(0.1, 0.25), site.choose("containers", "hatches", "none"), _loads(site)
    if wake:
        _wake(site, pose, length, width)
    patch = site.put("ship", pose, length, width)
    rim, top = site.row("vehicle", f"{hull} paint"), site.row("vehicle", deck)
    u, across = patch.u / np.float32(length), np.abs(patch.v) / np.float32(width / 2)
    narrow = np.maximum((u - np.float32(bow)) / np.float32(0.5 - bow), 0)
    sides = (1 - narrow * narrow) * (1 - np.float32(0.4) * np.maximum(-u - np.float32(0.4), 0) * 5)
    afloat = np.abs(u) < 0.5
    patch.fill((across < sides) & afloat, rim, 1.2 if boat else 3.0)
    if boat:
        patch.fill((across < 0.6 * sides) & (u < 0.12) & (u > -0.42), top, 1.2)
        patch.fill((across < 0.7 * sides) & (np.abs(u - np.float32(0.06)) < 0.1), site.row("vehicle", "glass"), 2.2)
        return width
    patch.fill((across < sides - np.float32(0.22)) & (np.abs(u) < 0.46), top, 3.0)
    _laden(site, patch, length, width, load, loads)
    return width


def _loads(site: Populated) -> list[str]:
    return [
        site.choose("red paint", "blue paint", "green paint", "rust", "silver paint", "yellow paint") for _ in range(6)
    ]


def _laden(site: Populated, patch: Patch, length: float, width: float, load: str, loads: list[str]) -> None:
    """The deck of a ship: a bridge at its stern, and its load."""
    if load != "none":
        step = 0.55 * length / len(loads)
        for i, name in enumerate(loads):
            colour, height = (name, 6.0) if load == "containers" else ("grey paint", 3.8)
            where = patch.box(-0.2 * length + (i + 0.5) * step, 0, 0.86 * step, 0.7 * width)
            patch.fill(where, site.row("vehicle", colour), height)
    white = site.row("vehicle", "white paint")
    patch.fill(patch.box(-0.34 * length, 0, 0.14 * length, 0.72 * width), white, 9.0)
    patch.fill(patch.box(-0.36 * length, 0, 0.05 * length, 0.2 * width), site.row("vehicle", "black paint"), 11.0)


def _wake(site: Populated, pose: Pose, length: float, width: float) -> None:
    """Foam behind a ship and two lines of waves."""
    long = site.between(0.5, 1.5) * length
    patch = site.patch(pose.at(-(length + long) / 2, 0), long, width + 0.5 * long)
    behind, aside = (np.float32(long / 2) - patch.u) / np.float32(long), np.abs(patch.v)
    there = (behind > 0) & (behind < 1)
    fading = 1 - np.clip(behind, 0, 1)
    patch.fill(there & (behind < 0.3) & (aside < 0.3 * width * (1 - behind)), site.row("water", "foam", 0.5))
    patch.lighten(there & (aside < width * (0.35 + 0.3 * behind)), 1 + 0.6 * fading)
    edge = np.abs(aside - width * np.float32(0.4) - behind * np.float32(0.22 * long))
    patch.lighten(there & (edge < 0.5 + 0.8 * behind), 1 + 0.35 * fading)


def storage_tank(site: Populated, pose: Pose, size: float, kind: str) -> None:
    """A round tank of this diameter, with a fixed roof or one that floats below its rim."""
    height = size * site.between(0.45, 0.7)
    ladder, paint = site.pose(0), site.choose("white paint", "white paint", "silver paint", "membrane")
    patch = site.put("storage-tank", pose, size, size)
    squared = patch.u * patch.u + patch.v * patch.v
    roof, rim = site.row("building", paint), site.row("building", "grey paint")
    patch.fill(squared < size * size / 4, roof if kind == "fixed" else rim, height)
    if kind == "floating":
        patch.fill(squared < 0.21 * size * size, site.row("building", paint, 0.8), 0.55 * height)
        return
    u, v = ladder.axes(patch.u, patch.v)
    patch.fill((np.abs(v) < 0.4) & (u > 0) & (squared < size * size / 4), rim, height + 0.4)
    patch.fill(squared < 0.014 * size * size, rim, height + 0.5)


COURT = (23.77, 10.97)  # metres, the outer lines
GROUND = (34.5, 17.0)  # with the ground around them


def tennis_court(site: Populated, pose: Pose, surface: str, around: str) -> None:
    """A court with its lines and the room around it."""
    wide = site.patch(pose, *GROUND)
    wide.fill(wide.box(0, 0, *GROUND), site.row("paving", around, 0.8), 0)
    patch = site.put("tennis-court", pose, *COURT)
    line, ground, net = (
        site.row("paving", "white paint"),
        site.row("paving", surface),
        site.row("paving", "black paint"),
    )
    thick = max(0.12, 0.8 * site.extent / site.size)
    length, width = COURT
    patch.fill(patch.box(0, 0, length, width), line, 0)
    patch.fill(patch.box(0, 0, length - 2 * thick, width - 2 * thick), ground)
    singles = width / 2 - 1.37
    for sign in (-1, 1):
        patch.fill(patch.box(sign * 6.4, 0, thick, 2 * singles), line)
        if thick < 0.5:  # else the lines overlap
            patch.fill(patch.box(0, sign * singles, length, thick), line)
    patch.fill(patch.box(0, 0, 12.8, thick), line)
    patch.fill(patch.box(0, 0, thick, width + 1.4), net, 0.8)
