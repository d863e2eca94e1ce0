"""Tiny encoders of implementations that are not packages: files of their repositories, which are not kept here."""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from tests.interop.references import Reference, drawn


@contextlib.contextmanager
def checkout(folder: Path) -> Iterator[None]:
    """Modules of a repository that is not a package, written for older versions of numpy and timm."""
    if not hasattr(np, "float"):
        np.float = float  # type: ignore[attr-defined]
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("util", "models_vit_group_channels", "models_vit_tensor"):
            del sys.modules[name]


def satmae(folder: Path) -> Reference:
    """`folder`: a checkout of sustainlab-group/SatMAE."""
    with checkout(folder):
        module = importlib.import_module("models_vit_group_channels")
    fields = {"img_size": 24, "patch_size": 6, "in_chans": 10, "embed_dim": 32, "depth": 2, "num_heads": 4}
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    model = drawn(module.GroupChannelsVisionTransformer(channel_embed=8, norm_layer=norm, qkv_bias=True, **fields))
    kept: list[torch.Tensor] = []
    model.norm.register_forward_hook(lambda _, __, out: kept.append(out))

    def tokens(x: torch.Tensor) -> torch.Tensor:
        model.forward_features(x)
        return kept.pop()

    options = {"family": "satmae_groups", "heads": 4}
    return Reference(model, {"model": model.state_dict()}, 10, 24, tokens, options)


def spectral_gpt(folder: Path) -> Reference:
    """`folder`: a checkout of danfenghong/IEEE_TPAMI_SpectralGPT."""
    with checkout(folder):
        module = importlib.import_module("models_vit_tensor")
    fields = {"img_size": 24, "patch_size": 6, "in_chans": 1, "embed_dim": 32, "depth": 2, "num_heads": 4}
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    model = module.VisionTransformer(num_frames=12, t_patch_size=3, norm_layer=norm, sep_pos_embed=True, **fields)
    drawn(model)
    kept: list[torch.Tensor] = []
    model.blocks[-1].register_forward_hook(lambda _, __, out: kept.append(out))

    def tokens(x: torch.Tensor) -> torch.Tensor:
        model(x)
        return model.norm(kept.pop().reshape(len(x), -1, 32))

    options = {"family": "spectral_gpt", "heads": 4}
    return Reference(model, {"model": model.state_dict()}, 12, 24, tokens, options)


def galileo(source: Path, bands: tuple[str, ...] = ("B02", "B03", "B04", "B8A", "B11", "B12")) -> Reference:
    """`source`: single_file_galileo.py of nasaharvest/galileo, which is not a package."""
    spec = importlib.util.spec_from_file_location("single_file_galileo", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = drawn(module.Encoder(max_patch_size=8, embedding_size=32, depth=2, num_heads=4, mlp_ratio=2))
    names = [name if len(name) != 2 else f"B0{name[1]}" for name in module.SPACE_TIME_BANDS]
    groups = list(module.SPACE_TIME_BANDS_GROUPS_IDX.values())
    chosen = [i for i, group in enumerate(groups) if {names[j] for j in group} <= set(bands)]

    def tokens(x: torch.Tensor) -> torch.Tensor:
        batch, _, size, _ = x.shape
        space_time = torch.zeros(batch, size, size, 1, len(names), dtype=x.dtype)
        space_time[..., [names.index(band) for band in bands]] = x.permute(0, 2, 3, 1)[:, :, :, None]
        masked = torch.ones(batch, size, size, 1, len(groups))
        masked[..., chosen] = 0
        nothing = {"sp": (size, size, 16, 3), "t": (1, 6, 3), "st": (18, 4)}
        empty = {name: torch.zeros(batch, *shape[:-1], dtype=x.dtype) for name, shape in nothing.items()}
        absent = {name: torch.ones(batch, *shape[:-2], shape[-1]) for name, shape in nothing.items()}
        months = torch.full((batch, 1), 6)
        out = model(space_time, *empty.values(), masked, *absent.values(), months, patch_size=4, input_resolution_m=20)[
            0
        ]  # [B, h, w, 1, groups, D]
        return out[:, :, :, 0, chosen].permute(0, 3, 1, 2, 4).reshape(batch, -1, out.shape[-1])

    options = {"family": "galileo", "heads": 4, "bands": bands, "time": "2021-07-15", "image_size": 16}
    options |= {"patch_size": 4, "resolution": 20.0}
    return Reference(model, model.state_dict(), len(bands), 16, tokens, options, exact=False)
