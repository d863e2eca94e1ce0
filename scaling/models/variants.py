"""The named architectures.

Sizes of the sequential ones: google-research/big_vision `models/vit.py`; of the parallel ones: Cha et al. (2304.05215),
by parameter counting. That paper does not state the heads of H12x4 and G12x4; the head size 64 of B and L is assumed.
"""

from typing import Any

from scaling.errors import UserError
from scaling.models.mae import MAEConfig

# name: width, depth, mlp, heads, head_dim, branches, patch_size
VARIANTS = {
    "vit_ti": (192, 12, 768, 3, 64, 1, 16),
    "vit_s": (384, 12, 1536, 6, 64, 1, 16),
    "vit_b": (768, 12, 3072, 12, 64, 1, 16),
    "vit_l": (1024, 24, 4096, 16, 64, 1, 16),
    "vit_so400m": (1152, 27, 4304, 16, 72, 1, 14),
    "vit_h": (1280, 32, 5120, 16, 80, 1, 14),
    "vit_g": (1408, 40, 6144, 16, 88, 1, 14),
    "vit_gg": (1664, 48, 8192, 16, 104, 1, 14),
    "vit_b12x1": (768, 12, 3072, 12, 64, 1, 16),
    "vit_l12x4": (1024, 12, 4096, 16, 64, 4, 16),
    "vit_h12x4": (1536, 12, 6144, 24, 64, 4, 16),
    "vit_g12x4": (2048, 12, 8192, 32, 64, 4, 16),
}
FIELDS = ("width", "depth", "mlp", "heads", "head_dim", "branches", "patch_size")

ALIASES = {"mae_vit_base": "vit_b", "mae_vit_large": "vit_l", "mae_vit_huge": "vit_h"}


def mae(name: str, **overrides: Any) -> MAEConfig:
    """The MAE configuration of a named architecture, with any field overridden.

    Raises:
      UserError: no such name; the message lists the names.
    """
    key = ALIASES.get(name, name)
    if key not in VARIANTS:
        raise UserError(f"unknown model {name!r}; the models are {', '.join([*VARIANTS, *ALIASES])}")
    return MAEConfig(**{**dict(zip(FIELDS, VARIANTS[key], strict=True)), **overrides})
