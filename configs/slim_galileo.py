"""Retention of a published encoder, Galileo nano (arXiv 2502.09356), on EuroSAT: widths and depths, beside floors.

    python -m scaling.convert --input=../shared/data/weights/galileo_nano/encoder.pt --output=runs/galileo_nano \\
        --image_size=64 --patch_size=8 --time=2018-07-15 --bands=B02,B03,B04
    python -m scaling.slim --checkpoint=runs/galileo_nano --config=slim_galileo.py --output=runs/slim_galileo
    python -m scaling.slim --checkpoint=runs/galileo_nano --config=slim_galileo.py:depth --output=runs/depth/galileo

Galileo takes reflectances of Sentinel-2, and EuroSAT's images are 8-bit: 255 is taken for a reflectance of 0.275. The
repair is calibrated on training images of EuroSAT, because the data that Galileo was trained on are not here. The
floors exclude raw pixels, whose linear probe takes long. `results/README.md` describes `../shared/data`.
"""

from typing import Any

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.core.errors import UserError
from scaling.encoders.handmade import QUICK_FLOORS
from scaling.interop.families.galileo import STATISTICS
from scaling.studies.slimming.cells import SlimmingStudyConfig
from scaling.studies.slimming.datasets import DatasetConfig

_PER_PIXEL = 2750 / 255  # in the units of Galileo, reflectance x 10,000
_BANDS = [STATISTICS[name] for name in ("B02", "B03", "B04")]


def get_config(axis: str = "") -> ConfigDict:
    own: dict[str, dict[str, Any]] = {
        "": {
            "study": "slimming_galileo",
            "widths": (0.02, 0.05, 0.1, 0.25, 0.5, 1.0),
            "orderings": ("first", "svd"),
            "recoveries": ("none", "ridge"),
            "calibration_source": "probed",
            "floors": QUICK_FLOORS,
        },
        "depth": {"study": "depth", "modes": ("layers",), "every_depth": True, "floors": ("handmade",)},
    }
    if axis not in own:
        raise UserError(f"--config=slim_galileo.py:{axis}: must be slim_galileo.py or slim_galileo.py:depth")
    eurosat = DatasetConfig(
        source="zip:../shared/data/eurosat/images.zip",
        bands=(2, 1, 0),
        mean=tuple((mean - 2 * deviation) / _PER_PIXEL for mean, deviation in _BANDS),
        std=tuple(4 * deviation / _PER_PIXEL for _, deviation in _BANDS),
    )
    controls = ("patch_embedding", "depth_0", "random_weights")
    shared = {"probes": ("knn", "linear"), "controls": controls, "datasets": {"eurosat": eurosat}}
    return config_dict(SlimmingStudyConfig(**(shared | own[axis])))
