"""Painters of a `Populated` site: the kinds of place that have objects with boxes.

The number and the sizes of objects are drawn anew for every scene: in a harbour 33 on average and up to
130, on open water 1 (up to 7; none on a third), on an airfield 10 (40), in a car park 45 (185), on a road 18 (54), in a
depot 21 (48), in a tank farm 6 (21), on a sports ground 14 (38), on other land none. Of all, half are small vehicles; a
scene in seven is empty. At 256 pixels cars are about 9 pixels long, boats 18, tanks 30, courts 48, and aircraft 13 to
100.
"""

import numpy as np

from scaling.data.scenes.countryside import countryside, farmland, leaves, meadow, trees
from scaling.data.scenes.land_cover import coast, lake, orchard, pasture, residential, ripples, river, water
from scaling.data.scenes.objects import Populated, Pose
from scaling.data.scenes.shapes import GROUND, plane, ship, storage_tank, tennis_court
from scaling.data.scenes.terrain import COVERS, material, wave
from scaling.data.scenes.traffic import (
    FAR,
    building,
    car_park,
    depot,
    pave,
    perhaps_vehicle,
    road,
    steps,
    street,
    surroundings,
)


def harbour(site: Populated) -> None:
    """A quay: ships along it, sometimes a second row beside them, or piers with boats side by side."""
    surroundings(site)
    pose = site.pose(15)
    u, v = pose.axes(site.x, site.y)
    strip = site.between(12, 35)
    pave(site, (v > -strip) & (v < 0), "concrete", "old asphalt")
    water(site, v, 0.05)
    ripples(site, v > 0, (u + v) / np.float32(site.between(5, 12)), site.between(0, 0.06))
    if site.chance(0.55):
        _marina(site, pose)
    else:
        _berths(site, pose)
    for _ in range(site.below(5)):
        building(site, pose.at(site.between(-70, 70), -strip - 10), site.between(10, 30), 14, site.between(4, 9))
    for _ in range(site.below(12)):
        where = pose.at(site.between(-70, 70), -site.between(3, strip - 3), site.choose(0, 0.5, 0.25))
        perhaps_vehicle(site, where, site.chance(0.7))


def _marina(site: Populated, quay: Pose) -> None:
    boat, reach, share = site.between(7, 14), site.between(25, 70), site.between(0.35, 0.95)
    half, gap = site.between(0.8, 1.6), site.choose(0.05, 0.3, 0.8)
    planks = site.row("bare ground", site.choose("wood", "concrete", "wood"))
    for along in steps(-FAR + site.between(0, 30), FAR, 3.4 * boat + 2 * half):
        pier = site.patch(quay.at(along, reach / 2, 0.25), reach, 2 * half)
        pier.fill(pier.box(0, 0, reach, 2 * half), planks, 1.0)
        for side in (-1, 1):
            out = site.between(2, 6)
            while out < reach - 2:
                length = boat * site.between(0.75, 1.1)
                wide = 0.36 * length + gap
                taken, bow = site.chance(share), site.choose(0, 0, 0.5)
                if taken:
                    middle = quay.at(along + side * (half + 0.4 + length / 2), out + wide / 2, bow + (side < 0) * 0.5)
                    ship(site, middle, length)
                out += wide


def _berths(site: Populated, quay: Pose) -> None:
    along = -FAR + site.between(0, 40)
    while along < FAR:
        length, ahead = site.between(18, 70), site.choose(0, 0.5)
        at, taken, more = quay.at(along + length / 2, 0, ahead), site.chance(0.75), site.chance(0.35)
        side = 1 if ahead == 0 else -1
        if taken:
            # At full width, so that a second one does not overlap it.
            width = ship(site, at.at(0, side * 0.12 * length + side * 0.4), length)
            if more:
                ship(site, at.at(0, side * (0.12 * length + 0.5 + width / 2 + 0.12 * length)), 0.85 * length)
        along += length + site.between(1.5, 12)


def open_water(site: Populated) -> None:
    """A lake, a river, a coast or the sea, and ships under way or at anchor."""
    kind = site.choose("sea", "sea", "lake", "river", "coast")
    if kind == "sea":
        depth = site.between(10, 60) + 6 * site.noise(120)
        water(site, np.maximum(depth, 1), 0)
        ripples(site, depth > -99, site.frame()[0] / np.float32(site.between(4, 14)), site.between(0, 0.12))
    else:
        {"lake": lake, "river": river, "coast": coast}[kind](site)
    site.open &= site.covers() == COVERS.index("water")
    for _ in range(site.choose(0, 1, 2, 3, 5, 8)):
        length, where, moves = site.choose(site.between(6, 16), site.between(20, 60)), site.pose(75), site.chance(0.6)
        if site.free(where, length, 0.36 * length):
            ship(site, where, length, moves)


def airfield(site: Populated) -> None:
    """An apron with aircraft in rows or parked at random, taxiways, hangars and the vehicles that serve them."""
    meadow(site)
    pose = site.pose(20)
    u, v = pose.axes(site.x, site.y)
    long, wide = site.between(60, 180), site.between(60, 120)
    apron = (np.abs(u) < long / 2) & (np.abs(v) < wide / 2)
    taxiway = np.abs(v - np.float32(wide / 2)) < site.between(6, 12)
    pave(site, apron | taxiway, "concrete", site.choose("old asphalt", "concrete", "asphalt"))
    slabs = site.between(5, 8)
    site.shade *= 1 - 0.08 * (apron & ((wave(u / slabs) > 0.94) | (wave(v / slabs) > 0.94)))
    site.paint("paving", np.abs(v - np.float32(wide / 2)) < 0.25, material("yellow paint"))
    site.open &= apron | taxiway
    length = site.choose(site.between(8, 14), site.between(20, 32), site.between(30, 42))
    gate = 1.45 * length if length < 18 else 1.08 * length
    slot, share, turned = gate + site.between(0.5, 0.3 * length), site.between(0.4, 1), site.choose(0, 0.5)
    for row in steps(-wide / 2 + 0.6 * length, wide / 2 - 1.2 * length, 1.5 * length):
        for at in steps(-long / 2 + slot / 2, long / 2 - slot / 2, slot):
            own = pose.at(at, row + site.between(-1, 1), 0.75 + turned + site.between(-0.02, 0.02))
            if site.chance(share):
                plane(site, own, length * site.choose(1, 1, 0.85))
    for _ in range(site.below(4)):
        own, size = site.pose(70), site.between(8, 34)
        if site.free(own, size, 1.45 * size):
            plane(site, own, size)
    for _ in range(site.below(4)):
        building(site, pose.at(site.between(-60, 60), -wide / 2 - 16), site.between(20, 45), 26, site.between(7, 12))
    for _ in range(site.below(10)):
        perhaps_vehicle(site, site.pose(70), site.chance(0.8))


def tank_farm(site: Populated) -> None:
    """Tanks in rows within walls, pipes, and tankers."""
    surroundings(site)
    pose = site.pose(25)
    u, v = pose.axes(site.x, site.y)
    size = site.choose(site.between(7, 12), site.between(12, 20), site.between(20, 32))
    step = size * site.choose(1.05, 1.3, 1.6)
    across, down = 1 + site.below(5), 1 + site.below(4)
    half = (across * step / 2 + 4, down * step / 2 + 4)
    area = (np.abs(u) < half[0] + 10) & (np.abs(v) < half[1] + 10)
    ground = site.choose("gravel", "concrete", "dry soil")
    pave(site, area, ground, "old asphalt")
    wall = (np.maximum(np.abs(u) - np.float32(half[0]), np.abs(v) - np.float32(half[1]))) ** 2 < 0.3
    site.paint("building", wall & area, material("concrete"))
    site.raise_to(wall & area, 1.5)
    pipes = (np.abs(v - np.float32(half[1] + 3)) < 0.8) & (np.abs(u) < half[0])
    site.paint("building", pipes, material("metal"))
    share, kind = site.between(0.5, 1), site.choose("fixed", "fixed", "floating")
    for row in range(down):
        for column in range(across):
            taken, own = site.chance(share), size * site.choose(1, 1, 1, 0.75)
            at = pose.at((column + 0.5 - across / 2) * step, (row + 0.5 - down / 2) * step)
            if taken:
                storage_tank(site, at, min(own, 0.98 * step), kind)
    site.open &= area & ~wall & ~pipes
    for _ in range(site.below(8)):
        perhaps_vehicle(
            site,
            pose.at(site.between(-60, 60), site.choose(-1, 1) * (half[1] + 6), site.choose(0, 0.5)),
            site.chance(0.5),
        )


def sports_ground(site: Populated) -> None:
    """Tennis courts side by side or alone in a park, and the cars of those who play."""
    meadow(site)
    trees(site, site.frame(), 13, site.between(6, 10), site.between(0.05, 0.5), leaves(site))
    pose = site.pose(35)
    surface, around = site.choose(
        ("clay", "clay"), ("blue sheet", "grass"), ("crop", "clay"), ("blue paint", "slate"), ("grass", "grass")
    )
    across, down = 1 + site.below(4), 1 + site.below(3)
    length, width = GROUND
    u, v = pose.axes(site.x, site.y)
    half = down * length / 2 + 3, across * width / 2 + 3
    grounds = (np.abs(u) < half[0]) & (np.abs(v) < half[1])
    pave(site, grounds, site.choose("concrete", "gravel", "grass"), "old asphalt")
    share = site.between(0.6, 1)
    for row in range(down):
        for column in range(across):
            at = pose.at((row + 0.5 - down / 2) * length, (column + 0.5 - across / 2) * width)
            if site.chance(share):
                tennis_court(site, at, surface, around)
    site.open &= ~grounds
    for _ in range(site.below(3)):
        own = site.pose(50)
        if site.free(own, *GROUND):
            tennis_court(site, own, site.choose("clay", "blue paint", "crop"), site.choose("clay", "slate"))
    street(site, pose, half[1] + site.between(4, 15))


def land(site: Populated) -> None:
    """No labelled objects: fields, woods, water or houses."""
    site.choose(farmland, pasture, orchard, countryside, residential, lake, coast)(site)


PLACES = {
    "harbour": harbour,
    "open water": open_water,
    "airfield": airfield,
    "car park": car_park,
    "road": road,
    "depot": depot,
    "tank farm": tank_farm,
    "sports ground": sports_ground,
    "land": land,
}
