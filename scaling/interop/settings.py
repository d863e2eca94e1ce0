"""The `config.json` that transformers and timm keep beside a file of weights.

What it says is read where the weights do not tell, compared with them where they do, and refused by name where it is
another function than that of our blocks. What only matters in training, or in a head, is not looked at.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling.core.errors import UserError
from scaling.models.mae import MAEConfig

_NESTED = ("model_args", "pretrained_cfg")  # where timm says more
# timm's name of what transformers calls
_NAMES = {
    "num_heads": "num_attention_heads",
    "embed_dim": "hidden_size",
    "num_features": "hidden_size",
    "depth": "num_hidden_layers",
    "img_size": "image_size",
    "in_chans": "num_channels",
    "reg_tokens": "num_register_tokens",
    "act_layer": "hidden_act",
    "decoder_embed_dim": "decoder_hidden_size",
    "decoder_depth": "decoder_num_hidden_layers",
    "decoder_num_heads": "decoder_num_attention_heads",
}
_COUNTS = ("num_attention_heads", "decoder_num_attention_heads", "image_size", "patch_size")
# Names of GELU by the error function and of the MLP with it; of SiLU and of the MLP that it gates by its first half.
_GELU = {"hidden_act": ("gelu", "gelu_python", "torch.nn.GELU", "nn.GELU", "GELU"), "mlp_layer": ("Mlp", "mlp")}
_SWIGLU = {"hidden_act": ("silu", "swish", "nn.SiLU", "SiLU"), "mlp_layer": ("SwiGLUPacked", "swiglupacked")}
# Models of timm with the keys of plain ones and other blocks (SigLIP 2: GELU by tanh), told by nothing but their name.
_OTHER_MODELS = re.compile(
    r"quickgelu|_rpn_|relpos|(base_patch32|so400m_patch16|giantopt_patch16)_siglip|large_patch16_siglip(_gap)?_512"
)

# What our blocks do not have: field, and what it says where a model does not have it either.
_OTHERS: dict[str, tuple[Any, ...]] = {
    "qk_norm": (False,),
    "scale_attn_norm": (False,),
    "scale_mlp_norm": (False,),
    "pre_norm": (False,),
    "norm_pre": (False,),
    "post_norm": (False,),
    "final_norm": (True,),
    "proj_bias": (True,),
    "mlp_bias": (True,),
    "attention_bias": (True,),
    "pos_embed": ("learn", "learned", True),
    "use_absolute_position_embeddings": (True,),
    "use_relative_position_bias": (False,),
    "use_shared_relative_position_bias": (False,),
    "use_rot_pos_emb": (False,),
    "rope": (False,),
    "pruned_heads": ({}, []),
    "norm_layer": ("layernorm",),
    "embed_norm_layer": (),
    "embed_layer": ("PatchEmbed",),
    "block_fn": ("Block",),
    "attn_layer": ("Attention", "attn"),
    "patch_padding": (0,),
}
_LARGE = 1e30  # nothing that a file means is as large; inf, nan and integers that no float holds are not below it


@dataclasses.dataclass(frozen=True)
class Settings:
    """What was found.

    Attributes:
      file: where, for messages.
      values: by the names of transformers; without what is null.
      names: what they are called there, where that is something else.
      heads: of the user, before all others; 0 for none.
    """

    file: str = "config.json"
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    heads: int = 0

    def refuse(self, field: str, why: str) -> UserError:
        """An error that begins with what the file says."""
        return UserError(f"{self.file}: {self.names.get(field, field)}={self.values.get(field)!r}: {why}")

    def count(self, field: str) -> int:
        """A whole number above 0, or 0 where nothing is said; of two equal ones (height and width) the one.

        Raises:
          UserError: it is something else.
        """
        value = self.values.get(field, 0)
        if isinstance(value, (list, tuple)) and value and value[-1] == value[-2:][0]:  # a tubelet has its frames first
            value = value[-1]
        if value == 0 and field not in self.values:
            return 0
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.refuse(field, "must be a whole number above 0 (a square has one side)")
        return value

    def share(self, field: str, otherwise: float) -> float:
        """A number between 0 and 1.

        Raises:
          UserError: it is something else.
        """
        value = self.values.get(field, otherwise)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
            raise self.refuse(field, "must be a number between 0 and 1")
        return float(value)

    def flag(self, field: str, otherwise: bool) -> bool:
        """Whether something is so.

        Raises:
          UserError: it is neither true nor false.
        """
        value = self.values.get(field, otherwise)
        if not isinstance(value, bool):
            raise self.refuse(field, "must be true or false")
        return value

    def check(self, model_types: tuple[str, ...]) -> None:
        """Raises UserError for a function that our blocks do not have, or a value that must be a number.

        Args:
          model_types: of transformers, whose keys the weights have; empty for weights of others.
        """
        kind = self.values.get("model_type")
        if kind is not None and kind not in model_types:
            ours = f"of {', '.join(model_types)}" if model_types else "not of a model of transformers"
            raise self.refuse(
                "model_type", f"the keys of the weights are {ours}; move config.json away if it is not theirs"
            )
        for field in _COUNTS:
            self.count(field)
        self.share("layer_norm_eps", 1e-6)
        for field, neutral in _OTHERS.items():
            if field in self.values and self.values[field] not in neutral:
                raise self.refuse(field, "the blocks here do not have that; this model cannot be imported")
        if _OTHER_MODELS.search(str(self.values.get("architecture", ""))):
            raise self.refuse("architecture", "the blocks here are not those of that model; it cannot be imported")

    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and deviation of the channels in the units of the images; None where nothing is said."""
        if "mean" not in self.values:
            return None
        return self.values["mean"], self.values["std"]

    def compare(self, c: MAEConfig, decoder: bool, biased: bool, sized: bool = True) -> None:
        """Raises UserError for the first field that is not so in the model that the weights are of.

        Args:
          c: that model.
          decoder: whether it has one.
          biased: whether queries, keys and values have biases in the file.
          sized: whether the size of the images is that of positions in the file.
        """
        self._compare_mlp(c.gated)
        found: dict[str, Any] = {
            "hidden_size": c.width,
            "num_hidden_layers": c.depth,
            "head_dim": c.head_dim,
            "intermediate_size": c.mlp,
            "patch_size": c.patch_size,
            "num_channels": c.bands,
            "image_size": c.image_size if sized else self.count("image_size"),
            "num_register_tokens": c.registers,
            "use_swiglu_ffn": c.gated,
            "class_token": c.class_token,
            "qkv_bias": biased,
        }
        if not c.gated and "mlp_ratio" in self.values:
            found["mlp_ratio"] = c.mlp / c.width
        if decoder:
            found |= {"decoder_hidden_size": c.decoder_width, "decoder_num_hidden_layers": c.decoder_depth}
            found["decoder_intermediate_size"] = c.decoder.mlp
        for field, value in found.items():
            said = self.count(field) if field in _COUNTS else self.values.get(field)
            if field in self.values and not _same(said, value, c.width):
                raise self.refuse(field, f"{value} in the weights; move config.json away if it is of another model")

    def _compare_mlp(self, gated: bool) -> None:
        """Raises UserError for another MLP than ours. Gated ones of transformers have SiLU, whatever `hidden_act`."""
        unread = "hidden_act" if gated and self.names.get("hidden_act") == "hidden_act" else ""
        for field, ours in (_SWIGLU if gated else _GELU).items():
            if field in self.values and field != unread and self.values[field] not in ours:
                what = "SwiGLU with the gate in the first half" if gated else "the exact GELU"
                raise self.refuse(field, f"the blocks here have {what}; this model cannot be imported")


def _same(said: Any, value: Any, width: int) -> bool:
    if isinstance(value, float) and isinstance(said, (int, float)):  # a ratio, of which the product is rounded
        return abs(said) < _LARGE and math.floor(said * width) == round(value * width)
    return type(said) is type(value) and said == value


def read_settings(path: Path, heads: int = 0) -> Settings:
    """What is said beside a file of weights; nothing where there is no `config.json`.

    Raises:
      UserError: it is not JSON, or says two things.
    """
    file, pixels = path.with_name("config.json"), path.with_name("preprocessor_config.json")
    values, names = _flat(_fields(file)) if file.is_file() else ({}, {})
    if pixels.is_file():
        values |= _pixels(Settings(str(pixels), {k: v for k, v in _fields(pixels).items() if v is not None}))
    return Settings(str(file), values, names, heads)


def _fields(file: Path) -> dict[str, Any]:
    try:
        said = json.loads(file.read_text())
    except ValueError as e:
        raise UserError(f"{file} is not JSON: {e}") from e
    if not isinstance(said, dict):
        raise UserError(f"{file} is not a set of fields")
    return said


def _flat(said: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of all parts by the names of transformers, and what they are called in the file. What timm says from 0
    to 1 of mean and deviation is from 0 to 255 then.
    """
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    for part in (said, *(said[name] for name in _NESTED if isinstance(said.get(name), dict))):
        for name, value in part.items():
            if value is not None and name not in _NESTED:
                field = _NAMES.get(name, name)
                values[field], names[field] = value, name
    mean, std = values.pop("mean", None), values.pop("std", None)
    if "architecture" in said and _numbers(mean, std):
        unit = 255.0 if max(std) <= 1 else 1.0
        values |= {"mean": tuple(unit * x for x in mean), "std": tuple(unit * x for x in std)}
    return values, names


def _pixels(said: Settings) -> dict[str, Any]:
    """Mean and deviation from 0 to 255 with which transformers' processor normalises images; none where it says none.

    Raises:
      UserError: they are not numbers.
    """
    scaled = said.flag("do_rescale", True) and said.values.get("rescale_factor") != 1
    unit = 1 / said.share("rescale_factor", 1 / 255) if scaled else 1.0
    mean, std = (said.values.get(name) for name in ("image_mean", "image_std"))
    if not said.flag("do_normalize", True):
        mean, std = [0.0] * 3, [1.0] * 3
    elif mean is None and std is None:
        return {}
    elif not _numbers(mean, std):
        raise said.refuse("image_mean", f"must be numbers, as many as image_std={std!r}, which must be above 0")
    return {"mean": tuple(unit * x for x in mean or ()), "std": tuple(unit * x for x in std or ())}


def _numbers(mean: Any, std: Any) -> bool:
    parts = (mean, std)
    if not all(
        isinstance(x, list) and x and all(isinstance(y, (int, float)) and abs(y) < _LARGE for y in x) for x in parts
    ):
        return False
    return len(mean) == len(std) and min(std) > 0
