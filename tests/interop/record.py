"""Records the outputs of the published implementations in tests/interop/recorded, for tests without torch.

    python -m tests.interop.record [--galileo=FILE] [--satmae=DIR] [--spectralgpt=DIR]

Tiny models with random weights: the file, one image, every token. Some implementations are not packages:
single_file_galileo.py of nasaharvest/galileo, and checkouts of sustainlab-group/SatMAE and
danfenghong/IEEE_TPAMI_SpectralGPT; without them the existing record is kept.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from tests.torch_only import declare_operators

declare_operators()
from tests.interop.checkouts import galileo, satmae, spectral_gpt  # noqa: E402  needs torch
from tests.interop.records import FOLDER  # noqa: E402
from tests.interop.references import CASES, Reference  # noqa: E402

CHOSEN = {
    "timm_registers": "timm LayerScale and registers",
    "timm_swiglu": "timm SwiGLU",
    "hf_dinov2": "transformers DINOv2 with registers",
    "prithvi": "Prithvi 2",
    "terramind_gated": "TerraMind base, Sentinel-1",
    "terramind_plain": "TerraMind tiny, Sentinel-1",
    "dofa": "DOFA",
    "scale_mae": "Scale-MAE",
    "croma": "CROMA",
    "panopticon": "Panopticon",
}
CHECKOUTS = {"galileo": galileo, "satmae": satmae, "spectralgpt": spectral_gpt}


def flat(tree, prefix=""):
    """Arrays by the keys that lead to them, as the importer reads a file."""
    for key, x in tree.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(x, dict):
            yield from flat(x, name)
        else:
            yield name, x.numpy()


def record(name: str, reference: Reference) -> None:
    images = reference.images(1)
    about = {"options": reference.options, "settings": reference.settings}
    arrays = {f"file/{key}": x for key, x in flat(reference.arrays)}
    np.savez_compressed(
        FOLDER / f"{name}.npz", about=json.dumps(about), images=images, tokens=reference.expected(images), **arrays
    )
    print(f"{name:<16} {(FOLDER / name).with_suffix('.npz').stat().st_size / 1e3:,.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in CHECKOUTS:
        parser.add_argument(f"--{name}", type=Path)
    given = vars(parser.parse_args())
    FOLDER.mkdir(exist_ok=True)
    for name, case in CHOSEN.items():
        record(name, CASES[case]())
    for name, case in CHECKOUTS.items():
        if given[name]:
            record(name, case(given[name]))


if __name__ == "__main__":
    main()
