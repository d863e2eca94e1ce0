"""The `config.json` that transformers and timm store beside a file of weights.

Its fields are used if the weights do not determine them, compared with the weights if they do, and refused by name if
they describe a function that our blocks do not have. Fields that only matter in training or in a head are ignored.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling.core.errors import UserError
from scaling.core.files import parse_json
from scaling.models.mae import MAEConfig

_NESTED = ("model_args", "pretrained_cfg")  # fields in which timm nests further settings
# timm's field -> transformers'
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
# Names of GELU with the error function and of MLPs with it; of SiLU and of MLPs gated with it by their first half.
_GELU = {"hidden_act": ("gelu", "gelu_python", "torch.nn.GELU", "nn.GELU", "GELU"), "mlp_layer": ("Mlp", "mlp")}
_SWIGLU = {"hidden_act": ("silu", "swish", "nn.SiLU", "SiLU"), "mlp_layer": ("SwiGLUPacked", "swiglupacked")}
# timm models with the keys of plain ones but other blocks (SigLIP 2: GELU by tanh), recognisable only by name.
_OTHER_MODELS = re.compile(
    r"quickgelu|_rpn_|relpos|(base_patch32|so400m_patch16|giantopt_patch16)_siglip|large_patch16_siglip(_gap)?_512"
)

# Features that our blocks lack: field, and its value in a model without the feature.
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
_LARGE = 1e30  # no field has a value as large; inf, nan and integers beyond float range are not below it


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings found beside a file of weights.

    Attributes:
      file: name of the file, for messages.
      values: values by transformers' names, without nulls.
      names: names in the file, if they differ.
      heads: number of heads given by the user, which takes precedence; 0 for none.
    """

    file: str = "config.json"
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    heads: int = 0

    def refuse(self, field: str, why: str) -> UserError:
        """An error that begins with the field and value in the file."""
        return UserError(f"{self.file}: {self.names.get(field, field)}={self.values.get(field)!r}: {why}")

    def count(self, field: str) -> int:
        """A positive integer, or 0 if the field is missing; two equal ones (height and width) count as one.

        Raises:
          UserError: another value.
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
          UserError: another value.
        """
        value = self.values.get(field, otherwise)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
            raise self.refuse(field, "must be a number between 0 and 1")
        return float(value)

    def flag(self, field: str, otherwise: bool) -> bool:
        """The value of a boolean field.

        Raises:
          UserError: neither true nor false.
        """
        value = self.values.get(field, otherwise)
        if not isinstance(value, bool):
            raise self.refuse(field, "must be true or false")
        return value

    def check(self, model_types: tuple[str, ...]) -> None:
        """Raises UserError for a function that our blocks do not have, or a value that should be a number.

        Args:
          model_types: transformers' model types with the keys of the weights; empty for weights from elsewhere.
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
        """Mean and deviation of the channels in the units of the images; None if not given."""
        if "mean" not in self.values:
            return None
        return self.values["mean"], self.values["std"]

    def compare(self, c: MAEConfig, decoder: bool, biased: bool, sized: bool = True) -> None:
        """Raises UserError for the first field that contradicts the model of the weights.

        Args:
          c: configuration of that model.
          decoder: whether it has a decoder.
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
        """Raises UserError for an MLP other than ours. Gated ones in transformers have SiLU, whatever `hidden_act`."""
        unread = "hidden_act" if gated and self.names.get("hidden_act") == "hidden_act" else ""
        for field, ours in (_SWIGLU if gated else _GELU).items():
            if field in self.values and field != unread and self.values[field] not in ours:
                what = "SwiGLU with the gate in the first half" if gated else "the exact GELU"
                raise self.refuse(field, f"the blocks here have {what}; this model cannot be imported")


def _same(said: Any, value: Any, width: int) -> bool:
    if isinstance(value, float) and isinstance(said, (int, float)):  # a ratio, whose product is rounded
        return abs(said) < _LARGE and math.floor(said * width) == round(value * width)
    return type(said) is type(value) and said == value


def read_settings(path: Path, heads: int = 0) -> Settings:
    """The settings beside a file of weights; empty without a `config.json`.

    Raises:
      UserError: not JSON, or contradictory fields.
    """
    file, pixels = path.with_name("config.json"), path.with_name("preprocessor_config.json")
    values, names = _flat(_fields(file)) if file.is_file() else ({}, {})
    if pixels.is_file():
        values |= _pixels(Settings(str(pixels), {k: v for k, v in _fields(pixels).items() if v is not None}))
    return Settings(str(file), values, names, heads)


def _fields(file: Path) -> dict[str, Any]:
    try:
        said = parse_json(file.read_text())
    except ValueError as e:
        raise UserError(f"{file}: must be JSON ({e}); mend it") from e
    if not isinstance(said, dict):
        raise UserError(f'{file}: must be a set of fields, {{"NAME": VALUE}}; mend it')
    return said


def _flat(said: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of all parts by transformers' names, and their names in the file. timm's mean and deviation are
    converted from the range 0 to 1 to 0 to 255.
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
    """Mean and deviation, from 0 to 255, by which transformers' processor normalises images; empty if it has none.

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
