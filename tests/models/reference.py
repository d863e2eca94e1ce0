"""The model once more, in plain numpy and float64, written after the papers rather than after our code: one loop per
layer, branch and head, tokens unshuffled before the decoder."""

import numpy as np
from scipy.special import erf


def layer_norm(p, x, eps=1e-6):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * p["scale"] + p["bias"]


def gelu(x):
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def block(p, x, c):
    """x: [T, D]."""
    y, total = layer_norm(p["attention_norm"], x), 0.0
    for r in range(c.branches):
        for n in range(c.heads):
            q, k, v = (y @ p["qkv"]["kernel"][:, r, s, n] + p["qkv"]["bias"][r, s, n] for s in range(3))
            if c.qk_norm:
                q, k = layer_norm(p["query_norm"], q), layer_norm(p["key_norm"], k)
            total = total + softmax(q @ k.T * c.scale) @ v @ p["attention_out"]["kernel"][r, n]
        total = total + p["attention_out"]["bias"][r]
    x = x + total * (p["attention_scale"]["gain"] if c.layer_scale else 1)
    y, total = layer_norm(p["mlp_norm"], x), 0.0
    for r in range(c.branches):
        kernel, bias = p["mlp_in"]["kernel"][:, r], p["mlp_in"]["bias"][r]
        if c.gated:
            gate, value = (y @ kernel[:, g] + bias[g] for g in range(2))
            hidden = gate / (1 + np.exp(-gate)) * value
        else:
            hidden = gelu(y @ kernel + bias)
        total = total + hidden @ p["mlp_out"]["kernel"][r] + p["mlp_out"]["bias"][r]
    return x + total * (p["mlp_scale"]["gain"] if c.layer_scale else 1)


def stack(p, x, c):
    for i in range(c.depth):
        layer = {group: {name: value[i] for name, value in values.items()} for group, values in p.items()}
        x = block(layer, x, c)
    return x


def sincos(grid, width):
    frequency = 1 / 10_000 ** (np.arange(width // 4) / (width / 4))
    rows = []
    for y in range(grid[0]):
        for x in range(grid[1]):
            rows.append(np.concatenate([f(v * frequency) for v in (x, y) for f in (np.sin, np.cos)]))
    return np.stack(rows)


def patches(image, size):
    """[h, w, C] -> [T, size * size * C], row by row."""
    rows, columns = image.shape[0] // size, image.shape[1] // size
    return np.stack(
        [
            image[i * size : (i + 1) * size, j * size : (j + 1) * size].ravel()
            for i in range(rows)
            for j in range(columns)
        ]
    )


def encode(p, image, c, keep=None):
    """[h, w, C] -> [T, D]."""
    positions = p["position"]["embedding"] if c.position == "learned" else sincos(c.grid, c.width)
    x = patches(image, c.patch_size) @ p["patch"]["kernel"] + p["patch"]["bias"] + positions
    if keep is not None:
        x = x[keep]
    if c.class_token:
        x = np.concatenate([p["cls"]["token"][None], x])
    return layer_norm(p["norm"], stack(p["blocks"], x, c))


def mae_loss(p, image, noise, c):
    """The loss of one image as in He et al.: unshuffle, decode, predict every patch, average over the masked ones."""
    order = np.argsort(noise, kind="stable")
    restore = np.argsort(order)
    tokens = encode(p["encoder"], image, c, order[: c.visible])
    d = p["decoder"]
    x = tokens @ d["embed"]["kernel"] + d["embed"]["bias"]
    cls, x = (x[:1], x[1:]) if c.class_token else (x[:0], x)
    x = np.concatenate([x, np.tile(d["mask"]["token"], (c.patches - c.visible, 1))])[restore]
    x = np.concatenate([cls, x + sincos(c.grid, c.decoder_width)])
    x = layer_norm(d["norm"], stack(d["blocks"], x, c.decoder))[len(cls) :]
    prediction = x @ d["pixels"]["kernel"] + d["pixels"]["bias"]
    target = patches(image, c.patch_size)
    if c.normalize_targets:
        target = (target - target.mean(-1, keepdims=True)) / np.sqrt(target.var(-1, keepdims=True, ddof=1) + 1e-6)
    masked = restore >= c.visible
    return ((prediction - target) ** 2).mean(-1)[masked].mean()
