"""Names of the classes of DOTA, by its version, and of DIOR-R, in the order of their numbers."""

import difflib
from collections.abc import Sequence

DOTA_CLASSES: dict[str, tuple[str, ...]] = {
    "1.0": (
        "plane",
        "baseball-diamond",
        "bridge",
        "ground-track-field",
        "small-vehicle",
        "large-vehicle",
        "ship",
        "tennis-court",
        "basketball-court",
        "storage-tank",
        "soccer-ball-field",
        "roundabout",
        "harbor",
        "swimming-pool",
        "helicopter",
    )
}
DOTA_CLASSES["1.5"] = (*DOTA_CLASSES["1.0"], "container-crane")
DOTA_CLASSES["2.0"] = (*DOTA_CLASSES["1.5"], "airport", "helipad")

DIOR_CLASSES = (
    "airplane",
    "airport",
    "baseballfield",
    "basketballcourt",
    "bridge",
    "chimney",
    "expressway-service-area",
    "expressway-toll-station",
    "dam",
    "golffield",
    "groundtrackfield",
    "harbor",
    "overpass",
    "ship",
    "stadium",
    "storagetank",
    "tenniscourt",
    "trainstation",
    "vehicle",
    "windmill",
)


def unknown_class(where: str, name: str, known: Sequence[str]) -> str:
    """The message for an unknown class, with the nearest known name."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"{where}: unknown class {name!r}; " + (
        f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"
    )
