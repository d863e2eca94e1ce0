"""The families by name, each a small file: a table of keys, and facts that are not in the weights."""

from scaling.interop.families.croma import CROMA
from scaling.interop.families.fb_mae import FB_MAE
from scaling.interop.families.galileo import GALILEO
from scaling.interop.families.grouped import SATMAE, SPECTRAL_GPT
from scaling.interop.families.hf_dinov2 import HF_DINOV2
from scaling.interop.families.hf_vit_mae import HF_VIT_MAE
from scaling.interop.families.hypernetworks import HYPERNETWORKS
from scaling.interop.families.moco_v3 import MOCO_V3
from scaling.interop.families.panopticon import PANOPTICON
from scaling.interop.families.prithvi import PRITHVI_V1, PRITHVI_V2
from scaling.interop.families.scale_mae import SCALE_MAE
from scaling.interop.families.ssl4eo_s12 import SOFTCON, SSL4EO_S12
from scaling.interop.families.terramind import TERRAMIND
from scaling.interop.families.timm_vit import TIMM_VIT

_PLAIN = (TIMM_VIT, FB_MAE, HF_VIT_MAE, HF_DINOV2, MOCO_V3, SCALE_MAE)
_EARTH = (
    PRITHVI_V1,
    PRITHVI_V2,
    SSL4EO_S12,
    SOFTCON,
    *TERRAMIND,
    *HYPERNETWORKS,
    PANOPTICON,
    GALILEO,
    CROMA,
    SATMAE,
    SPECTRAL_GPT,
)

FAMILIES = {family.name: family for family in (*_PLAIN, *_EARTH)}
