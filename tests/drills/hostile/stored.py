"""The configuration inside a checkpoint, and the config.json beside foreign weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from scaling.core.config import config_dict
from scaling.encoders.loading import describe_encoder, load_encoder
from scaling.encoders.writing import write_parameters
from scaling.interop.importing import import_weights
from scaling.training.checksums import write_checksums
from scaling.training.config import FinetuneConfig, TrainConfig
from tests.drills.hostile.formats import Format, as_text
from tests.encoders.examples import blank_encoder, small_encoder

_STEP = 3


def _configs() -> list[bytes]:
    pretrained = config_dict(TrainConfig(model=blank_encoder().config)).to_json_best_effort()
    finetuned = config_dict(FinetuneConfig(model=blank_encoder().config)).to_json_best_effort()
    return [pretrained.encode(), finetuned.encode()]


def _crafted_configs() -> list[bytes]:
    whole = json.loads(_configs()[0])

    def with_model(**fields: Any) -> bytes:
        return json.dumps({**whole, "model": {**whole["model"], **fields}}).encode()

    return [
        with_model(width=2**40), with_model(depth=10**9), with_model(depth=-1), with_model(image_size=2**31),
        with_model(heads=0), with_model(bands=-3), with_model(patch_size=0), with_model(width="32"),
        b"[" * 100_000, b'{"model":' * 100_000, b"[]", b"null", b'{"model": []}', b'{"kept": {}}', b'{"kept": 3}',
        b'{"model": {"width": 1e999}}', b'{"model": {"width": NaN}}', b'{"__class__": "os.system"}',
    ]  # fmt: skip


def _checkpoint(folder: Path) -> Path:
    """A small checkpoint; written once by every worker."""
    run = folder / "run"
    if not run.exists():
        encoder = small_encoder()
        params = {"encoder": _numpy(encoder.params)}
        write_parameters(params, _STEP, json.loads(_configs()[0]), run)
    return run


def _numpy(tree: Any) -> Any:
    return {k: _numpy(v) for k, v in tree.items()} if isinstance(tree, dict) else np.asarray(tree)


def _read(path: Path) -> None:
    run = _checkpoint(path.parent)
    step = run / "checkpoints" / str(_STEP)
    (step / "config" / "metadata").write_bytes(path.read_bytes())
    write_checksums(step)  # an attacker would; without, every change is refused as damage
    describe_encoder(run)
    load_encoder(run)


def _settings() -> list[bytes]:
    plain = {"model_type": "vit_mae", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    more = {"image_size": 16, "patch_size": 4, "num_channels": 3, "layer_norm_eps": 1e-6, "hidden_act": "gelu"}
    timm = {"architecture": "vit_tiny", "num_classes": 0, "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    return [json.dumps({**plain, **more}).encode(), json.dumps({**timm, "model_args": {"embed_dim": 32}}).encode()]


def _read_settings(path: Path) -> None:
    weights = path.with_name("weights.safetensors")
    if not weights.exists():
        rng = np.random.default_rng(0)
        shapes = {
            "cls_token": (1, 1, 32), "pos_embed": (1, 17, 32), "patch_embed.proj.weight": (32, 3, 4, 4),
            "patch_embed.proj.bias": (32,), "norm.weight": (32,), "norm.bias": (32,),
        }  # fmt: skip
        block = {
            "norm1.weight": (32,), "norm1.bias": (32,), "attn.qkv.weight": (96, 32), "attn.qkv.bias": (96,),
            "attn.proj.weight": (32, 32), "attn.proj.bias": (32,), "norm2.weight": (32,), "norm2.bias": (32,),
            "mlp.fc1.weight": (128, 32), "mlp.fc1.bias": (128,), "mlp.fc2.weight": (32, 128), "mlp.fc2.bias": (32,),
        }  # fmt: skip
        shapes |= {f"blocks.0.{name}": shape for name, shape in block.items()}
        save_file({k: rng.normal(size=v).astype(np.float32) for k, v in shapes.items()}, weights)
    path.replace(path.with_name("config.json"))
    import_weights(weights, "timm_vit", heads=2)


def _timm_only() -> list[bytes]:
    return _settings()[1:]


FORMATS = (
    Format("checkpoint_config", "the configuration in a checkpoint", _configs, _read, _crafted_configs, as_text),
    Format(
        "config_json", "the config.json beside foreign weights", _timm_only, _read_settings,
        lambda: [_settings()[0], b"[" * 100_000, b'{"a":' * 100_000, b"[]", b"", b"\xff\xfe{"], as_text, ".json",
    ),
)  # fmt: skip
