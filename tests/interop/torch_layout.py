"""A plain ViT in numpy that computes from arrays as torch keeps them, written after timm rather than after our code.

Its arrays by timm's keys, and by those of transformers and of Prithvi.
"""

import math

import numpy as np

from tests.models.reference import gelu, sincos, softmax


def draw(width=32, depth=2, mlp=48, patch=4, bands=3, grid=4, layer_scale=False, fixed=False, seed=0):
    """Random arrays by timm's keys, none of them zero or one."""
    rng = np.random.default_rng(seed)

    def some(*shape):
        return (0.3 * rng.normal(size=shape) + 0.02).astype(np.float32)

    position = some(1, grid**2 + 1, width)
    if fixed:
        position[0] = np.concatenate([np.zeros((1, width)), sincos((grid, grid), width)])
    arrays = {
        "cls_token": some(1, 1, width),
        "pos_embed": position,
        "patch_embed.proj.weight": some(width, bands, patch, patch),
        "patch_embed.proj.bias": some(width),
        "norm.weight": some(width),
        "norm.bias": some(width),
    }
    for i in range(depth):
        for key, shape in {
            "norm1": (width,),
            "norm2": (width,),
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "mlp.fc1": (mlp, width),
            "mlp.fc2": (width, mlp),
        }.items():
            arrays[f"blocks.{i}.{key}.weight"] = some(*shape)
            arrays[f"blocks.{i}.{key}.bias"] = some(shape[0])
        if layer_scale:
            arrays |= {f"blocks.{i}.ls{k}.gamma": some(width) for k in (1, 2)}
    return arrays


def tokens(a, image, heads, eps=1e-6):
    """All tokens of one image [bands, h, w], after the final norm: [1 + T, D]."""
    a = {key: x.astype(np.float64) for key, x in a.items()}
    weight = a["patch_embed.proj.weight"]
    patch = weight.shape[-1]
    rows = []
    for y in range(0, image.shape[1], patch):
        for x in range(0, image.shape[2], patch):
            part = image[:, y : y + patch, x : x + patch]
            rows.append(np.einsum("dcij,cij->d", weight, part) + a["patch_embed.proj.bias"])
    x = np.concatenate([a["cls_token"][0], np.stack(rows)]) + a["pos_embed"][0]

    def norm(name, x):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * a[f"{name}.weight"] + a[f"{name}.bias"]

    def linear(name, x):
        return x @ a[f"{name}.weight"].T + a[f"{name}.bias"]

    for i in range(sum(key.endswith("norm1.weight") for key in a)):
        b = f"blocks.{i}"
        q, k, v = np.split(linear(f"{b}.attn.qkv", norm(f"{b}.norm1", x)), 3, axis=-1)
        parts = zip(*(np.split(z, heads, axis=-1) for z in (q, k, v)), strict=True)
        mixed = [softmax(q @ k.T / np.sqrt(q.shape[-1])) @ v for q, k, v in parts]
        x = x + linear(f"{b}.attn.proj", np.concatenate(mixed, axis=-1)) * a.get(f"{b}.ls1.gamma", 1)
        hidden = gelu(linear(f"{b}.mlp.fc1", norm(f"{b}.norm2", x)))
        x = x + linear(f"{b}.mlp.fc2", hidden) * a.get(f"{b}.ls2.gamma", 1)
    return norm("norm", x)


NAMES = {  # of transformers before version 5, and since
    "old": ("encoder.layer", "attention.attention.{}", ("query", "key", "value"), "attention.output.dense"),
    "new": ("layers", "attention.{}_proj", ("q", "k", "v"), "attention.o_proj"),
}
MLP = {"old": ("intermediate.dense", "output.dense"), "new": ("mlp.fc1", "mlp.fc2")}


def vit_mae(arrays, age="old"):
    """timm's arrays by the keys of transformers' ViTMAE."""
    stack, pattern, parts, out = NAMES[age]
    fixed = {
        "cls_token": "vit.embeddings.cls_token",
        "pos_embed": "vit.embeddings.position_embeddings",
        "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "norm": "vit.layernorm",
    }
    modules = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": out}
    modules |= dict(zip(("mlp.fc1", "mlp.fc2"), MLP[age], strict=True))
    result = {}
    for key, x in arrays.items():
        stem, _, kind = key.rpartition(".")
        if not key.startswith("blocks."):
            result[f"{fixed[stem]}.{kind}" if stem in fixed else fixed[key]] = x
            continue
        _, i, module = stem.split(".", 2)
        if module == "attn.qkv":
            for part, third in zip(parts, np.split(x, 3), strict=True):
                result[f"vit.{stack}.{i}.{pattern.format(part)}.{kind}"] = third
        else:
            result[f"vit.{stack}.{i}.{modules[module]}.{kind}"] = x
    return result


def several_dates(width, dates, grid):
    """Prithvi's positions: three eighths of the width for the column, as many for the row, a quarter for the date."""

    def encode(values, size):
        angles = np.outer(values, 1 / 10_000 ** (np.arange(size // 2) / (size / 2)))
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    t, y, x = (axis.ravel() for axis in np.meshgrid(*map(np.arange, (dates, grid, grid)), indexing="ij"))
    parts = [encode(x, width * 6 // 16), encode(y, width * 6 // 16), encode(t, width * 4 // 16)]
    return np.concatenate([np.zeros((1, width)), np.concatenate(parts, axis=1)])[None].astype(np.float32)


def prithvi(arrays, dates):
    """timm's arrays by the keys of Prithvi, with its positions of several dates."""
    kernel = arrays["patch_embed.proj.weight"][:, :, None]  # one frame
    _, positions, width = arrays["pos_embed"].shape
    table = several_dates(width, dates, math.isqrt(positions))
    stored = arrays | {"patch_embed.proj.weight": kernel, "pos_embed": table}
    return {f"encoder.{key}": x for key, x in stored.items()}
