"""The origin of an encoder, and the input that it takes."""

import dataclasses
from typing import Any

from scaling.encoders.bands import band_names
from scaling.encoders.encoder import Encoder
from scaling.training.stored_config import ImportConfig


def origin(encoder: Encoder) -> dict[str, Any]:
    """Everything needed to feed an encoder, and its origin; plain types, for JSON."""
    c, train, data = encoder.config, encoder.train, encoder.train.data
    imported = train if isinstance(train, ImportConfig) else None
    return {
        "image_size": c.sides,
        "patch_size": c.patch_size,
        "bands": list(data.bands or range(c.bands)),
        "band_names": list(band_names(encoder)),
        "normalisation": "(pixels - mean) / std, of each band" if data.mean else "not known to the checkpoint",
        "mean": list(data.mean),
        "std": list(data.std),
        "objective": encoder.objective,
        "source": imported.file if imported else data.source,
        "family": imported.family if imported else "",
        "licence": imported.licence if imported else "",
        "step": encoder.step,
        "cuts": [dataclasses.asdict(cut) for cut in encoder.cuts],
    }
