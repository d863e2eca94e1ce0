"""Names of the classes of DOTA, by its version, and of DIOR-R, in the order of their numbers."""

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
