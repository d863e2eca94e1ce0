"""Countryside: grass, trees, fields and woods, which are classes of `scaling.data.scenes.land_cover` and surroundings
of others.

Sizes are metres and typical of the real thing.
"""

import numpy as np

from scaling.data.scenes.terrain import Layer, Site, blend, cell_of, material, ramp, wave


def meadow(site: Site, dryness: float = 0.0) -> None:
    """Grass with patches of drier grass and a little soil; `dryness` shifts the season."""
    patches = dryness + 1 - 1.2 * site.lushness + site.choose(0.1, 0.25) * site.noise(site.between(60, 200))
    site.paint_each(
        "grass", True, patches, ramp(material("grass"), blend("dry grass", "dry soil", site.between(0, 0.5)))
    )


def trees(
    site: Site, frame: tuple[Layer, Layer], spacing: float, crown: float, density: Layer | float, kinds: np.ndarray
) -> None:
    """Crowns of diameter `crown` on a grid of `spacing`, each somewhat out of line.

    `density` is the probability of a tree, one value or one per pixel; `kinds` the materials [n, 1 + bands].
    """
    su, sv = frame[0] / spacing, frame[1] / spacing
    i, j = np.floor(su), np.floor(sv)
    cell = cell_of(i, j)
    room = max(0.3, 1 - crown / spacing)
    du = su - i - (0.5 + room * (site.pick(cell, 0) - 0.5))
    dv = sv - j - (0.5 + room * (site.pick(cell, 1) - 0.5))
    size = 0.7 + 0.6 * site.pick(cell, 2)
    dome = size - (du * du + dv * dv) * (2 * spacing / crown) ** 2
    standing = (dome > 0) & (site.pick(cell, 3) < density)
    site.raise_to(standing, crown * (0.3 + 0.6 * dome))
    site.paint_each("trees", standing, site.pick(cell, 4), kinds)


def leaves(site: Site) -> np.ndarray:
    """The colours of one stand of trees, [12, 1 + bands]."""
    broad = blend("autumn leaf", "broadleaf", min(1, site.lushness + site.between(0, 0.6)))
    return site.choose(
        ramp(broad, material("broadleaf")), ramp(material("conifer"), broad), ramp(material("conifer"), broad * 0.8)
    )


def parcels(site: Site, width: float, length: float) -> tuple[np.ndarray, Layer, Layer, Layer]:
    """Land divided into strips and the strips into plots.

    Returns: the cell of each pixel, its distance to the plot's border (metres), and the frame along and across strips.
    """
    u, v = site.frame()
    u = u + site.between(0, 6) * site.noise(150, "gentle")
    su = v / width + site.between(0, 0.3) * site.bend(v, 2.5 * width)
    strip = np.floor(su)
    sv = u / length + site.pick(cell_of(strip, strip), 7)
    across = np.abs(su - np.rint(su)) * width
    along = np.abs(sv - np.rint(sv)) * length
    return cell_of(strip, np.floor(sv)), np.minimum(across, along), u, v


def farmland(site: Site) -> None:
    """Plots at different stages of growth, with tramlines, and tracks or hedges between them."""
    cell, border, u, v = parcels(site, site.between(45, 120), site.between(90, 260))
    bare = blend("soil", "dry soil", site.between(0, 1)) if site.chance(0.7) else blend("soil", "clay", 0.7)
    ripe = site.choose(material("ripe crop"), material("rapeseed"), material("dry grass"))
    stages = np.concatenate([ramp(bare, material("young crop"), 5), ramp(material("crop"), ripe, 5)])
    site.paint_each("field", True, site.pick(cell, 0), stages)
    rows = np.where(site.pick(cell, 1) < 0.7, v, u) / site.between(9, 22)
    depth = site.pick(cell, 2) * site.between(0.05, 0.35)
    site.shade *= (1 + depth * (wave(rows) - 0.5)) * (1 + 0.05 * site.noise(70))
    if site.chance(0.35):
        site.paint("bare ground", border < site.between(1.5, 3.5), blend("dry soil", "gravel", site.between(0, 1)))
    elif site.chance(0.5):
        hedges = (border < site.between(2.5, 5)) & (site.texture(120) > -0.6)
        site.paint("trees", hedges, blend("broadleaf", "grass", 0.3))
        site.raise_to(hedges, 4)


def pivots(site: Site) -> None:
    """Irrigated circles on dry land, each cut into sectors by the pivot arm."""
    spacing = site.between(110, 190)
    u, v = site.frame(site.between(-0.02, 0.02))
    su, sv = u / spacing, v / spacing
    du, dv = su - np.rint(su), sv - np.rint(sv)
    distance = np.sqrt(du * du + dv * dv)
    cell = cell_of(np.rint(su), np.rint(sv))
    cut = du * (site.pick(cell, 1) - 0.5) > dv * (site.pick(cell, 2) - 0.5)
    growth = np.where(cut & (site.pick(cell, 3) < 0.6), site.pick(cell, 4), site.pick(cell, 5))
    ground = 0.5 + site.between(0.1, 0.3) * site.noise(150)
    site.paint_each(
        "bare ground", True, ground, ramp(blend("dry soil", "dry grass", site.between(0, 1)), material("dry soil"))
    )
    stages = np.concatenate(
        [ramp(material("soil"), material("young crop"), 5), ramp(material("crop"), material("ripe crop"), 4)]
    )
    site.paint_each("field", distance < site.between(0.44, 0.49), growth, stages)
    site.shade *= 1 + site.between(0.05, 0.2) * (wave(distance * spacing / site.between(8, 16)) - 0.5)


def woodland(site: Site, where: Layer | bool = True) -> None:
    """Two layers of crowns of different sizes over a dark floor, within a bool mask."""
    site.paint("trees", where, material("understorey"))
    kinds = leaves(site)
    crown = site.between(7, 13)
    u, v = site.frame()
    sway = 0.6 * crown * site.noise(10 * crown, "gentle")
    trees(site, (u + sway, v - sway), crown * 0.85, crown, where, kinds)
    trees(site, (v - sway, u + sway), crown * 1.4, crown * 1.25, where, kinds)


def countryside(site: Site) -> None:
    """The surroundings of lakes, rivers, coasts and highways: fields, meadows, woods, or meadows with woods."""
    kind = site.choose("fields", "fields", "meadow", "woods", "mosaic")
    if kind == "fields":
        farmland(site)
    elif kind == "woods":
        woodland(site)
    else:
        meadow(site)
        if kind == "mosaic":
            woodland(site, site.noise(site.between(120, 250)) > site.between(-0.2, 0.8))
