"""Painters of a `Populated` site with vehicles: roads, streets, car parks, depots; and the paved and built ground
that other places share.
"""

import numpy as np

from scaling.data.scenes.countryside import countryside, farmland, leaves, meadow, trees, woodland
from scaling.data.scenes.land_cover import residential
from scaling.data.scenes.objects import Populated, Pose
from scaling.data.scenes.shapes import large_vehicle, small_vehicle
from scaling.data.scenes.terrain import COVERS, Layer, blend, material, ramp, wave

FAR = 100.0  # metres from the centre beyond which nothing is visible


def pave(site: Populated, where: Layer, *names: str) -> None:
    """Levels ground and covers it with stains of materials between the two given."""
    site.clear(where)
    stains = 0.5 + site.between(0.05, 0.2) * site.noise(site.between(15, 60))
    site.paint_each("paving", where, stains, ramp(material(names[0]), material(names[-1])))


def building(site: Populated, pose: Pose, length: float, width: float, height: float) -> None:
    """A flat roof with seams, which stays free of objects."""
    patch = site.patch(pose, length, width)
    name, light = site.choose("metal", "membrane", "bitumen", "blue sheet", "tiles", "slate"), site.choose(0.7, 0.9)
    where = patch.box(0, 0, length, width)
    patch.fill(where, site.row("building", name, light), height)
    patch.lighten(where & (wave(patch.u / np.float32(site.between(4, 9))) > 0.8), site.between(0.75, 0.95))
    patch.take(length, width)


def surroundings(site: Populated) -> None:
    """The surroundings of built-up places."""
    kind = site.choose("meadow", "town", "woods", "fields")
    if kind == "town":
        residential(site)
    elif kind == "woods":
        meadow(site)
        woodland(site, site.noise(site.between(80, 200)) > site.between(-0.3, 0.5))
    elif kind == "fields":
        farmland(site)
    else:
        meadow(site)
        trees(site, site.frame(), 14, site.between(5, 9), site.between(0, 0.4), leaves(site))


def steps(first: float, last: float, step: float) -> list[float]:
    return [first + step * i for i in range(max(int((last - first) / step) + 1, 0))]


def perhaps_vehicle(site: Populated, pose: Pose, small: bool) -> None:
    """Places a vehicle if there is room."""
    if site.free(pose, *((5.2, 2.1) if small else (18, 2.6))):
        (small_vehicle if small else large_vehicle)(site, pose)


def car_park(site: Populated) -> None:
    """Rows of bays, more or less full, beside a building."""
    surroundings(site)
    pose = site.pose(20)
    u, v = pose.axes(site.x, site.y)
    rows, long = 1 + site.below(4), site.between(30, 75)
    bay, aisle, deep = site.between(2.4, 2.7), site.between(5.5, 7), site.between(4.9, 5.4)
    period = 2 * deep + aisle
    wide = rows * period
    lot = (np.abs(u) < long / 2 + 4) & (np.abs(v) < wide / 2 + 2)
    pave(site, lot, "asphalt", site.choose("old asphalt", "asphalt", "concrete"))
    inside = v + np.float32(wide / 2)
    within = inside - np.floor(inside / np.float32(period)) * np.float32(period)
    bays = lot & (np.abs(within - np.float32(period / 2)) > aisle / 2) & (np.abs(u) < long / 2)
    thick = max(0.1, 0.3 * site.extent / site.size)
    stripes = np.abs(u / np.float32(bay) - np.rint(u / np.float32(bay))) < thick / bay
    site.paint("paving", bays & stripes, blend("old asphalt", "white paint", site.between(0.1, 0.4)))
    share, tidy = site.choose(0.08, site.between(0.2, 0.6), site.between(0.5, 0.98)), site.between(0.05, 0.2)
    for line in range(2 * rows):
        middle = -wide / 2 + (line // 2) * period + (deep / 2 if line % 2 == 0 else period - deep / 2)
        for at in steps((int(-long / 2 / bay) + 0.5) * bay, long / 2 - bay / 2, bay):
            off, ahead = site.between(-tidy, tidy), site.choose(0.25, 0.75)
            own = pose.at(at + off, middle + 2 * off, ahead + site.between(-0.008, 0.008))
            if site.chance(share):
                small_vehicle(site, own)
    for row in range(rows):
        lane = -wide / 2 + row * period + period / 2
        for _ in range(site.below(3)):
            perhaps_vehicle(site, pose.at(site.between(-long / 2, long / 2), lane, site.choose(0, 0.5)), True)
    hall = pose.at(site.between(-10, 10), -wide / 2 - 22)
    building(site, hall, site.between(30, 60), 34, site.between(5, 10))


def road(site: Populated) -> None:
    """A road with lanes and traffic, thin or standing, sometimes across an empty one."""
    countryside(site)
    own, crosses = site.pose(30), site.chance(0.35)
    if crosses:
        _lanes(site, own.at(site.between(-30, 30), 0, site.between(0.15, 0.35)))
    lanes, lane = _lanes(site, own)
    site.open &= site.covers() == COVERS.index("paving")
    spacing = site.choose(8, 15, 30, 60)
    for side in (-1, 1):
        for number in range(lanes):
            along, jam = -FAR + site.between(0, 30), site.chance(0.2)
            while along < FAR:
                off, long = site.between(-0.4, 0.4), site.chance(0.2)
                where = own.at(along, side * (number + 0.5) * lane + off, 0 if side > 0 else 0.5)
                perhaps_vehicle(site, where.at(0, 0, site.between(-0.006, 0.006)), not long)
                along += (18 if long else 5) + (site.between(1, 5) if jam else site.between(0.3, 2) * spacing)


def _lanes(site: Populated, pose: Pose) -> tuple[int, float]:
    """A road through a place, its verge and its lines. Returns the lanes of each direction, and their width."""
    lanes, lane = 1 + site.below(3), site.between(3.3, 3.8)
    half = lanes * lane + 0.7
    u, v = pose.axes(site.x, site.y)
    verge = np.abs(v) < half + site.between(2, 6)
    site.clear(verge)
    site.paint("grass", verge, blend("grass", "dry grass", 1 - site.lushness))
    pave(site, np.abs(v) < half, site.choose("asphalt", "old asphalt"), "old asphalt")
    thick = max(0.12, 0.35 * site.extent / site.size)
    dashed = (wave(u / 18) < 0.35) & (np.abs(v / lane - np.rint(v / lane)) < thick / lane) & (np.abs(v) > 1)
    solid = (np.abs(np.abs(v) - np.float32(half - 0.5)) < thick) | (np.abs(v) < thick)
    lines = (dashed | solid) & (np.abs(v) < half)
    site.paint("paving", lines, blend("old asphalt", "white paint", site.between(0.4, 0.9)))
    return lanes, lane


def depot(site: Populated) -> None:
    """A hall with lorries side by side at its docks, trailers in a row, containers and cars."""
    surroundings(site)
    pose = site.pose(15)
    u, v = pose.axes(site.x, site.y)
    long, deep = site.between(50, 100), site.between(60, 90)
    yard = (np.abs(u) < long / 2 + 6) & (np.abs(v) < deep / 2)
    pave(site, yard, site.choose("concrete", "asphalt"), "old asphalt")
    hall = site.between(20, 35)
    building(site, pose.at(0, -deep / 2 + hall / 2), long, hall, site.between(8, 12))
    step, share = site.choose(2.75, 3.2, 4.0), site.between(0.15, 0.8)
    for line in (-deep / 2 + hall + 9.5, deep / 2 - 11):
        for at in steps(-long / 2 + step, long / 2 - step, step):
            taken, ahead = site.chance(share), site.choose(0.25, 0.25, 0.75)
            if taken:
                large_vehicle(site, pose.at(at, line, ahead))
    site.open &= yard
    for _ in range(site.below(5)):
        stack, wide = site.pose(50), 2.5 * (1 + site.below(3))
        if site.free(stack, 12.2, wide):
            building(site, stack, 12.2, wide, 2.6)
    for _ in range(4 + site.below(14)):
        perhaps_vehicle(
            site, pose.at(site.between(-50, 50), site.between(-40, 40), site.choose(0, 0.25)), site.chance(0.8)
        )


def street(site: Populated, pose: Pose, aside: float) -> None:
    """A street with cars at its kerbs."""
    _, v = pose.axes(site.x, site.y)
    off = np.abs(v - np.float32(aside))
    pave(site, off < 4.5, "asphalt", "old asphalt")
    share = site.between(0, 0.6)
    for side in (-3.2, 3.2):
        along = -FAR
        while along < FAR:
            taken, ahead = site.chance(share), site.choose(0, 0.5)
            if taken:
                small_vehicle(site, pose.at(along, aside + side, ahead))
            along += site.between(5.4, 7)
