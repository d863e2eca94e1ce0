"""Painters of land cover: each class of `scaling.data.scenes.source` is a function that paints a `Site`.

The classes share materials, seasons and surroundings and differ in spatial structure: a lake, a river, a coast and a
highway are all in the same countryside. Sizes are metres and typical of the real thing.
"""

import numpy as np

from scaling.data.scenes.countryside import (
    countryside,
    farmland,
    leaves,
    meadow,
    parcels,
    pivots,
    trees,
    woodland,
)
from scaling.data.scenes.terrain import Layer, Site, blend, cell_of, material, ramp, wave


def water(site: Site, depth: Layer, shore: float) -> None:
    """Water where `depth` (metres from the shore) is positive, with a beach or reeds `shore` metres wide."""
    bank = site.choose("sand", "gravel", "soil", "dry grass", "understorey")
    bare = depth > -shore
    site.clear(bare)
    site.paint("bare ground", bare, blend(bank, "soil", site.between(0, 0.5)))
    near = blend("shallow water", site.choose("turbid water", "algal water"), site.between(0, 1))
    far = blend("deep water", site.choose("turbid water", "algal water"), site.between(0, 0.8))
    site.paint_each("water", depth > 0, depth / site.between(20, 90) + 0.08 * site.noise(90), ramp(near, far, 16))


def ripples(site: Site, where: Layer, phase: Layer, strength: float) -> None:
    """Wave crests on water: `phase` counts them."""
    crest = wave(phase + 0.25 * site.noise(60)) - 0.5
    site.shade += where * (strength * crest)


def cars(site: Site, where: Layer, u: Layer, v: Layer, lane: float, gap: float, density: float) -> None:
    """Parked or driving cars, dark to bright boxes along `u` in lanes of `v`."""
    if not site.crowded:
        return
    su, sv = u / gap, v / lane
    i, j = np.floor(su), np.floor(sv)
    cell = cell_of(i, j)
    box = (np.abs(su - i - 0.5) < 2.4 / gap) & (np.abs(sv - j - 0.5) < 1.2 / lane)
    parked = box & where & (site.pick(cell, 5) < density)
    site.paint_each("vehicle", parked, site.pick(cell, 6), [material("car") * s for s in (0.2, 0.4, 0.8, 1.4)])
    site.raise_to(parked, 1.5)


def buildings(
    site: Site, du: Layer, dv: Layer, half: tuple[Layer, Layer | float], eaves: Layer, pitch: float, lots: Layer
) -> Layer:
    """Boxes with half sizes `half` about du = dv = 0, within the bool mask `lots`; returns the mask of the roofs.

    `eaves` is their height; a gable along `du` rises by `pitch` from eaves to ridge. All in metres.
    """
    across = np.abs(dv) / half[1]
    roofs = (np.abs(du) < half[0]) & (across < 1) & lots
    np.copyto(site.height, eaves + pitch * (1 - across), where=roofs)
    return roofs


def annual_crop(site: Site) -> None:
    """Fields, or now and then irrigated circles."""
    pivots(site) if site.chance(0.2) else farmland(site)


def orchard(site: Site) -> None:
    """Permanent crops: trees on a grid or vines in rows, in plots with headlands."""
    cell, border, u, v = parcels(site, site.between(70, 150), site.between(110, 280))
    floor = ramp(blend("grass", "dry grass", 1 - site.lushness), blend("soil", "dry soil", site.between(0, 1)))
    site.paint_each("grass", True, site.pick(cell, 0) * 0.7 + 0.15 + 0.1 * site.noise(80), floor)
    planted = (border > site.between(2, 5)) * (0.99 - 0.15 * site.pick(cell, 7))
    rows = np.where(site.pick(cell, 6) < 0.6, u, v), np.where(site.pick(cell, 6) < 0.6, v, u)
    kinds = ramp(blend("broadleaf", "dry grass", site.between(0, 0.4)), blend("conifer", "crop", site.between(0, 0.6)))
    spacing = site.between(8, 15)
    if site.chance(0.4):
        vine = (wave(rows[1] / spacing) > site.between(0.45, 0.65)) & (site.texture(40) < 1.6) & (planted > 0)
        site.paint_each("field", vine, site.pick(cell, 4), kinds)
        site.raise_to(vine, site.between(1.5, 3))
    else:
        trees(site, rows, spacing, spacing * site.between(0.6, 0.85), planted, kinds)


def forest(site: Site) -> None:
    """Closed stands, sometimes of two kinds, with clearings and forest roads."""
    if site.chance(0.4):
        meadow(site)
        woodland(site, site.noise(site.between(100, 250)) > site.between(-2.2, -0.9))
    else:
        woodland(site)
    if site.chance(0.4):
        woodland(site, site.noise(site.between(120, 250)) > 0)
    if site.chance(0.3):
        u, v = site.axes()
        road = np.abs(v + site.between(-80, 80) + site.between(5, 15) * site.bend(u, 200)) < 3
        site.clear(road)
        site.paint("bare ground", road, blend("gravel", "soil", 0.5))


def pasture(site: Site) -> None:
    """Grazed grass with trampled patches, lone trees, cattle tracks, and fences or hedges around large paddocks."""
    meadow(site)
    _, border, u, v = parcels(site, site.between(120, 260), site.between(150, 320))
    if site.chance(0.5):
        site.paint("grass", border < site.between(0.8, 2), blend("dry grass", "understorey", site.between(0, 1)))
    if site.chance(0.6):
        track = np.abs(wave((v + site.between(8, 20) * site.bend(u, 120)) / 160) * 80 - 40) < site.between(1, 2)
        site.paint("bare ground", track, blend("dry soil", "soil", site.between(0, 1)))
    thicket = np.clip(0.05 * (1 + site.noise(140)), 0, None) * site.between(0, 3)
    trees(site, site.frame(), 14, site.between(7, 11), thicket, leaves(site))


def lake(site: Site) -> None:
    """A closed shore within the scene."""
    countryside(site)
    radius = site.between(50, 100)
    u, v = site.axes()
    u, v = u + site.between(-40, 40), (v + site.between(-40, 40)) * site.between(1, 1.7)
    rough = radius * site.between(0.1, 0.3)
    depth = radius - np.sqrt(u * u + v * v) + rough * site.noise(site.between(70, 150))
    water(site, depth, site.between(1, 7))
    ripples(site, depth > 0, (u + v) / 23, site.between(0, 0.1))


def river(site: Site) -> None:
    """A winding channel from one side of the scene to another."""
    countryside(site)
    u, v = site.axes()
    middle = site.between(-50, 50) + site.between(8, 45) * site.bend(u, site.between(150, 350))
    half = site.between(8, 32) * (1 + 0.15 * site.bend(u, 90))
    depth = half - np.abs(v - middle) + 1.5 * site.noise(50)
    water(site, depth, site.between(1, 10))
    ripples(site, depth > 0, v / 9, site.between(0, 0.08))


def coast(site: Site) -> None:
    """Open water on one side, surf along a beach or cliffs, countryside on the other."""
    countryside(site)
    u, v = site.axes()
    shore = site.between(-70, 50) + site.between(3, 28) * site.bend(u, site.between(150, 400))
    depth = v - shore + site.between(0, 5) * site.noise(60)
    water(site, depth, site.between(4, 35))
    ripples(site, depth > 0, depth / site.between(9, 20), site.between(0.05, 0.25))
    surf = site.between(2, 12) * (1 + 0.6 * site.noise(70))
    breaking = (depth > 0) & (depth < surf) & (site.texture(25) > -0.4)
    site.paint("water", breaking, blend("foam", "shallow water", site.between(0, 0.7)))


def highway(site: Site) -> None:
    """Two carriageways with a median, traffic, verges and sometimes a bridge across."""
    countryside(site)
    u, v = site.axes()
    v = v - site.between(-60, 60) - site.choose(0, 4, 25) * site.bend(u, 400)
    half, median = site.between(9, 16), site.between(1, 3)
    verge = np.abs(v) < half + site.between(2, 9)
    site.paint("grass", verge, blend("grass", "dry grass", 1 - site.lushness))
    road = (np.abs(v) < half) & (np.abs(v) > median)
    site.clear(verge)
    surface = site.choose("asphalt", "old asphalt", "concrete")
    site.paint("paving", road, blend("old asphalt", surface, site.between(0.2, 1)))
    cars(site, road, u, v - half, 3.6, 22, site.between(0.02, 0.3))
    if site.chance(0.3):
        across = u + site.between(-60, 60) + site.between(-0.6, 0.6) * v
        bridge = np.abs(across) < site.between(3, 6)
        site.paint("paving", bridge, blend("asphalt", "old asphalt", site.between(0, 1)))
        site.clear(bridge)
        site.raise_to(bridge & (np.abs(v) < half + 6), 6)


def residential(site: Site) -> None:
    """Streets, lots with houses or slabs of flats, gardens and street trees."""
    meadow(site, dryness=-0.3)
    flats = site.chance(0.3)
    lot, deep = (site.between(34, 50), site.between(30, 40)) if flats else (site.between(15, 24), site.between(20, 30))
    street = site.between(6, 10)
    u, v = site.frame()
    if not flats and site.chance(0.6):
        u = u + site.between(8, 20) * site.noise(240, "gentle")
        v = v + site.between(8, 20) * site.noise(240, "gentle")
    period = 2 * deep + street, (4 + site.below(5)) * lot + street
    row, block = np.floor(v / period[0]), np.floor(u / period[1])
    v_in, u_in = v - row * period[0] - street, u - block * period[1] - street
    back, number = np.floor(v_in / deep), np.floor(u_in / lot)
    cell = cell_of(2 * row + back, 16 * block + number)
    trees(site, site.frame(), 11, site.between(5, 9), site.between(0.1, 0.6), leaves(site))
    lane = (v_in < 0) | (u_in < 0)
    site.paint("paving", lane, blend("asphalt", "old asphalt", site.between(0, 1)))
    site.clear(lane)
    half = (lot * (0.25 + 0.15 * site.pick(cell, 2)), deep * site.between(0.16, 0.24))
    du = u_in - (number + 0.5) * lot
    dv = v_in - (back + 0.5) * deep + (back - 0.5) * deep * site.between(0, 0.35)
    built = ~lane & (site.pick(cell, 3) < site.between(0.75, 1))
    eaves = 10 + 8 * site.pick(cell, 1) if flats else 3 + 3 * site.pick(cell, 1)
    roofs = buildings(site, du, dv, half, eaves, 0 if flats else 4, built)
    pitched = ("tiles", "brown tiles", "slate", "clay", "old asphalt")
    names = ("bitumen", "concrete", "gravel") if flats else [site.choose(*pitched) for _ in range(3)]
    site.paint_each("building", roofs, site.pick(cell, 4), [material(n) * site.between(0.8, 1.25) for n in names])
    cars(site, lane, u, v_in, 3, 9, site.between(0, 0.3))


def industrial(site: Site) -> None:
    """Large flat roofs, yards, car parks and tanks on paved ground."""
    paving = site.noise(120) * 0.3 + 0.5
    site.paint_each(
        "paving", True, paving, ramp(blend("asphalt", "gravel", site.between(0, 1)), material("old asphalt"))
    )
    width, deep, road = site.between(55, 110), site.between(45, 90), site.between(8, 16)
    u, v = site.frame()
    i, j = np.floor(u / width), np.floor(v / deep)
    cell = cell_of(i, j)
    du, dv = u - (i + 0.5) * width, v - (j + 0.5) * deep
    use = site.pick(cell, 0)
    verge = (np.abs(du) > (width - road) / 2 - 3) | (np.abs(dv) > (deep - road) / 2 - 3)
    lane = (np.abs(du) > (width - road) / 2) | (np.abs(dv) > (deep - road) / 2)
    if site.chance(0.6):
        site.paint("grass", verge & ~lane, blend("grass", "dry grass", 1 - site.lushness))
    cars(site, ~verge & (use > 0.76), v, u, 3.2, 7, site.between(0.3, 0.9))
    half = (width - road) * (0.28 + 0.14 * site.pick(cell, 2)), (deep - road) * (0.28 + 0.14 * site.pick(cell, 3))
    halls = buildings(site, du, dv, half, 6 + 8 * site.pick(cell, 1), 0, use < 0.7)
    names = [site.choose("metal", "membrane", "bitumen", "gravel", "blue sheet", "tiles", "concrete") for _ in range(5)]
    site.paint_each("building", halls, site.pick(cell, 4), [material(n) * site.between(0.6, 1.1) for n in names])
    seams = halls & (wave(du / site.between(6, 14)) > 0.85)
    np.copyto(site.shade, np.float32(site.between(0.6, 1)), where=seams)
    tank_size = site.between(14, 24)
    tu, tv = du / tank_size - np.rint(du / tank_size), dv / tank_size - np.rint(dv / tank_size)
    tanks = (tu * tu + tv * tv < 0.14) & (use > 0.7) & (use < 0.76) & ~verge
    site.paint("building", tanks, material("membrane") * site.between(0.6, 1))
    site.raise_to(tanks, 10)


CLASSES = {
    "annual crop": annual_crop,
    "orchard": orchard,
    "forest": forest,
    "pasture": pasture,
    "lake": lake,
    "river": river,
    "coast": coast,
    "highway": highway,
    "residential": residential,
    "industrial": industrial,
}
