"""Slimming once more, in plain numpy and float64 after section 3 of 2601.22841: the full matrices, of which rows and
columns are picked by flat index sets, one loop per layer, branch and head."""

import numpy as np

from tests.models.reference import gelu, layer_norm, patches, sincos, softmax


def encode(p, image, c, kept, scale):
    """[h, w, C] -> [T, kept embed]. p: the full encoder; kept: how many of each axis stay; scale: of the logits."""
    d = kept["embed"]
    positions = p["position"]["embedding"] if c.position == "learned" else sincos(c.grid, c.width)
    x = patches(image, c.patch_size) @ p["patch"]["kernel"][:, :d] + p["patch"]["bias"][:d] + positions[:, :d]
    if c.class_token:
        x = np.concatenate([p["cls"]["token"][None, :d], x])
    for i in range(c.depth):
        layer = {group: {name: value[i] for name, value in values.items()} for group, values in p["blocks"].items()}
        x = x + attention(layer, norm(layer["attention_norm"], x, d), c, kept, scale) * gain(layer, "attention", d)
        x = x + mlp(layer, norm(layer["mlp_norm"], x, d), c, kept) * gain(layer, "mlp", d)
    return norm(p["norm"], x, d)


def norm(p, x, d):
    return layer_norm({k: v[:d] for k, v in p.items()}, x)


def gain(layer, which, d):
    return layer[f"{which}_scale"]["gain"][:d] if f"{which}_scale" in layer else 1


def attention(p, y, c, kept, scale):
    d, out = kept["embed"], 0.0
    index = [n * c.head_dim + h for n in range(kept["heads"]) for h in range(kept["head_dim"])]  # the set I
    for r in range(kept["branch"]):
        q, k, v = (
            y @ p["qkv"]["kernel"][:, r, s].reshape(c.width, -1)[:d, index] + p["qkv"]["bias"][r, s].ravel()[index]
            for s in range(3)
        )
        mixed = []
        for n in range(kept["heads"]):
            head = slice(n * kept["head_dim"], (n + 1) * kept["head_dim"])
            qh, kh = q[:, head], k[:, head]
            if c.qk_norm:
                qh, kh = (norm(p[f"{x}_norm"], z, kept["head_dim"]) for x, z in (("query", qh), ("key", kh)))
            mixed.append(softmax(scale * qh @ kh.T) @ v[:, head])
        projection = p["attention_out"]["kernel"][r].reshape(-1, c.width)[index, :d]
        out = out + np.concatenate(mixed, 1) @ projection + p["attention_out"]["bias"][r, :d]
    return out


def mlp(p, y, c, kept):
    d, f, out = kept["embed"], kept["mlp"], 0.0
    for r in range(kept["branch"]):
        kernel, bias = p["mlp_in"]["kernel"][:d, r], p["mlp_in"]["bias"][r]
        if c.gated:
            gate, value = (y @ kernel[:, g, :f] + bias[g, :f] for g in range(2))
            hidden = gate / (1 + np.exp(-gate)) * value
        else:
            hidden = gelu(y @ kernel[:, :f] + bias[:f])
        out = out + hidden @ p["mlp_out"]["kernel"][r, :f, :d] + p["mlp_out"]["bias"][r, :d]
    return out
