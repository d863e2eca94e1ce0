"""Exports encoders, as weights with the keys of a family, or as a program that runs without this package.

The tables are those of the import, read backwards. Beside every file is FILE.json: mean, deviation and bands of the
images, pooling, and the origin of the encoder.
"""

import json
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict
from jax import export
from safetensors.numpy import save_file

from scaling import axes
from scaling.core.errors import UserError
from scaling.core.files import whole_file, write_whole
from scaling.encoders.encoder import Encoder
from scaling.encoders.origin import origin
from scaling.interop.families import FAMILIES
from scaling.interop.mapping import Arrays, Place, part_of, torch_order
from scaling.interop.positions import DECODER_POSITIONS, LEARNED, POSITIONS
from scaling.models.config import ViTConfig
from scaling.models.vit import POOLS, ViT, abstract_vit, position_embedding

LAYOUTS = ("timm_vit", "hf_vit_mae")  # families whose models can hold our encoders


def export_weights(encoder: Encoder, layout: str, path: epath.Path) -> None:
    """Writes an encoder as safetensors in the layout of timm or transformers.

    Heads of a slimmed encoder do not fill its width. transformers since version 5 reads their size from the
    `config.json` that is written beside the file, so that `ViTModel.from_pretrained(folder)` works if the file is
    called `model.safetensors`; in timm's VisionTransformer give an `attn_layer` that passes `attn_head_dim`. Their
    logits are scaled by 1/sqrt(head size); another scale of ours is absorbed into the weights of the queries.

    Raises:
      UserError: an architecture that their classes do not support; the message names the feature.
    """
    c = encoder.config
    check_layout(layout, c)
    settings = path.with_name("config.json")
    if layout == "hf_vit_mae":
        if settings.exists():
            raise UserError(f"--output={path}: {settings.name} is there already; choose another folder")
        write_whole(settings, json.dumps(_settings(c), indent=2) + "\n")
    with whole_file(str(path)) as aside:
        save_file(_arrays(encoder, layout), aside)
        aside.chmod(0o666 & ~_umask())  # the library makes it readable by its owner only
    _describe(encoder, "", path)


def check_layout(layout: str, c: ViTConfig) -> None:
    """Raises UserError for an architecture that the classes of a layout do not support; the message names the
    feature.
    """
    if layout not in LAYOUTS:
        raise UserError(f"--layout={layout}: must be one of {', '.join(LAYOUTS)}; give one")
    refused = {
        "scaled residual sums": c.residual_scale != 1,
        "parallel branches": c.branches > 1,
        "a gated MLP": c.gated,
        "norms of queries and keys": c.qk_norm,
        "no class token": not c.class_token,
        "registers": bool(c.registers),
        "several tokens a patch": c.groups > 1,
        "attention over channels": bool(c.channel_width),
        "patches that begin beside their place": bool(c.patch_offset),
        "no norm of its tokens": c.final_norm != "tokens",
        "LayerScale": bool(c.layer_scale) and layout == "hf_vit_mae",
    }
    for what, is_so in refused.items():
        if is_so:
            raise UserError(f"--to={layout}: cannot hold this encoder, which has {what}; give --to=stablehlo")


def _umask() -> int:
    mask = os.umask(0o022)  # the umask cannot be read without setting it
    os.umask(mask)
    return mask


def beside(path: epath.Path) -> epath.Path:
    """Path of the JSON file that describes the input of an exported file."""
    return path.with_name(path.name + ".json")


def check_beside(path: epath.Path) -> None:
    """Raises UserError if another file has that path."""
    file = beside(path)
    if file.exists() and '"normalisation"' not in file.read_text():
        raise UserError(f"--output={path}: how to feed it would replace {file}; choose another name")


def _describe(encoder: Encoder, pool: str, path: epath.Path) -> None:
    """Writes the description of the images and the origin of the encoder. An empty pool leaves the pool to the user."""
    c = encoder.config
    shape = "float32 [N, {}, {}, {}]".format(*c.image_shape, c.bands)
    about = {"file": path.name, "input": shape if pool else "as the class of the layout", "pooling": pool or None}
    about |= origin(encoder)
    write_whole(beside(path), json.dumps(about, indent=2) + "\n")


def _settings(c: ViTConfig) -> dict[str, Any]:
    """Settings of transformers' ViTModel for these weights."""
    return {
        "model_type": "vit",
        "architectures": ["ViTModel"],
        "hidden_size": c.width,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.heads,
        "head_dim": c.head_dim,
        "intermediate_size": c.mlp,
        "hidden_act": "gelu",
        "layer_norm_eps": c.norm_eps,
        "image_size": c.sides,
        "patch_size": c.patch_size,
        "num_channels": c.bands,
        "qkv_bias": True,
    }


def _arrays(encoder: Encoder, layout: str) -> Arrays:
    c, family = encoder.config, FAMILIES[layout]
    leaves = flatten_dict({"encoder": jax.tree.map(np.asarray, encoder.params)}, sep="/")
    names = flatten_dict({"encoder": abstract_vit(c)[1]}, sep="/")
    leaves |= {path: _with_scale(leaves[path], names[path], c) for path in leaves if "/qkv/" in path}
    arrays: Arrays = {}
    done: set[Place] = set()
    for pattern, place in family.table.items():
        if place == POSITIONS:
            positions = np.concatenate([np.zeros((1, c.width)), np.asarray(position_embedding(encoder.params, c))])
            arrays[_key(family.prefixes[0], pattern)] = positions[None].astype(np.float32)
        if place.path not in leaves or pattern == LEARNED or place in (*done, DECODER_POSITIONS):
            continue
        done.add(place)  # transformers has two names for some keys; the older one, used on the hub, comes first
        for block in range(c.depth) if "{i}" in pattern else (None,):
            x, left = part_of(leaves[place.path], names[place.path], block, place.part)
            key = _key(family.prefixes[0], pattern.replace("{i}", str(block)))
            x = _as_torch(x, left, c)
            arrays[key] = np.ascontiguousarray(x[None, None] if place.path == "encoder/cls/token" else x)
    return arrays


def _with_scale(x: np.ndarray, names: axes.Names, c: ViTConfig) -> np.ndarray:
    """Weights of queries, keys and values for logits scaled by 1/sqrt(head size), as in the layouts' classes:
    another scale of ours, as in a cut that preserves the full encoder's function, is absorbed into the queries.
    """
    ratio = c.scale * c.head_dim**0.5
    if abs(ratio - 1) <= 1e-6:
        return x
    x = x.copy()
    x[(slice(None),) * names.index("qkv") + (0,)] *= np.float32(ratio)
    return x


def _key(prefix: str, key: str) -> str:
    return key if key.startswith("decoder.") else prefix + key


def _as_torch(x: np.ndarray, names: axes.Names, c: ViTConfig) -> np.ndarray:
    """The inverse of `scaling.interop.mapping.arranged`."""
    if not axes.is_kernel(names):
        return x.reshape(-1)
    outputs, inputs = torch_order(names)
    matrix = x.transpose(*outputs, *inputs).reshape(int(np.prod([x.shape[i] for i in outputs])), -1)
    if "patch" not in names:
        return matrix
    return matrix.reshape(-1, c.patch_size, c.patch_size, c.bands).transpose(0, 3, 1, 2)


def export_program(encoder: Encoder, pool: str, path: epath.Path) -> None:
    """Writes a serialized `jax.export` program from normalised images [B, h, w, C] to features, for any batch size B,
    on CPUs, GPUs and TPUs; and beside it, as JSON, the normalisation of images.

    Raises:
      UserError: features that the encoder does not have.
    """
    encoder.check_pool(pool)
    c = encoder.config
    params = jax.tree.map(np.asarray, encoder.params)  # not on a device

    def features(images: jax.Array) -> jax.Array:
        tokens: Any = ViT(c).apply({"params": params}, images)
        return POOLS[pool](tokens, c).astype(jnp.float32)

    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *c.image_shape, c.bands), jnp.float32)
    program = export.export(jax.jit(features), platforms=("cpu", "cuda", "tpu"))(images)
    with whole_file(str(path)) as aside:
        aside.write_bytes(program.serialize())
    _describe(encoder, pool, path)
