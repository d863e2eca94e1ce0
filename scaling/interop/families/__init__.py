"""The families by name, each a small file of its own: a table of keys, and what the weights do not say."""

from scaling.interop.families.fb_mae import FB_MAE
from scaling.interop.families.hf_vit_mae import HF_VIT_MAE
from scaling.interop.families.moco_v3 import MOCO_V3
from scaling.interop.families.prithvi import PRITHVI_V2
from scaling.interop.families.ssl4eo_s12 import SSL4EO_S12
from scaling.interop.families.timm_vit import TIMM_VIT

FAMILIES = {family.name: family for family in (TIMM_VIT, FB_MAE, HF_VIT_MAE, MOCO_V3, PRITHVI_V2, SSL4EO_S12)}
