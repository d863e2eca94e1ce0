"""MoCo v3 from the published formulas in float64 numpy, written without a look at ours.

Gradients are by the complex step: the imaginary part of f(x + ih) / h is exact to the last bits, where f is made of
analytic functions; max and ReLU decide by the real part.
"""

import copy
import dataclasses
from typing import Any

import numpy as np
from scipy.special import erf as real_erf

STEP = 1e-30  # h


@dataclasses.dataclass(frozen=True)
class Published:
    """The reference's settings; the fields after `momentum` are mistakes that a comparison must find."""

    patch: int
    steps: int
    temperature: float = 0.2
    momentum: float = 0.99
    keys_first: bool = False
    one_sided: bool = False
    local_batches: int = 1
    factor: float = 2.0

    def share(self, step: int) -> float:
        """m = 1 - 0.5 (1 + cos(pi e / E)) (1 - 0.99)."""
        return 1 - 0.5 * (1 + np.cos(np.pi * step / self.steps)) * (1 - self.momentum)


def positions(side: int, width: int) -> np.ndarray:
    """[sin_w, cos_w, sin_h, cos_h] over a meshgrid whose first axis is w."""
    w, h = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    omega = 1 / 10_000.0 ** (np.arange(width // 4) / (width // 4))
    out_w, out_h = (np.einsum("m,d->md", x.ravel().astype(float), omega) for x in (w, h))
    return np.concatenate([np.sin(out_w), np.cos(out_w), np.sin(out_h), np.cos(out_h)], 1).astype(np.float32)


def erf(z):
    return real_erf(z.real) + 1j * z.imag * 2 / np.sqrt(np.pi) * np.exp(-(z.real**2))


def layer_norm(x, p):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def softmax(x):
    e = np.exp(x - x.real.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def encode(p, images, patch):
    """The class token of a plain ViT of one branch. images: [B, h, w, C], normalised."""
    b, side = len(images), images.shape[1] // patch
    x = images.reshape(b, side, patch, side, patch, -1).transpose(0, 1, 3, 2, 4, 5).reshape(b, side * side, -1)
    x = x @ p["patch"]["kernel"] + p["patch"]["bias"] + positions(side, p["patch"]["bias"].size)
    x = np.concatenate([np.broadcast_to(p["cls"]["token"], (b, 1, x.shape[-1])), x], 1)
    blocks = p["blocks"]
    for i in range(len(blocks["qkv"]["kernel"])):
        layer = {g: {n: a[i] for n, a in group.items()} for g, group in blocks.items()}
        y = layer_norm(x, layer["attention_norm"])
        q, k, v = (
            np.einsum("btd,dnh->bnth", y, layer["qkv"]["kernel"][:, 0, s]) + layer["qkv"]["bias"][0, s][None, :, None]
            for s in range(3)
        )
        a = softmax(np.einsum("bnth,bnsh->bnts", q, k) / np.sqrt(q.shape[-1])) @ v
        out = layer["attention_out"]
        x = x + np.einsum("bnth,nhd->btd", a, out["kernel"][0]) + out["bias"][0]
        y = layer_norm(x, layer["mlp_norm"]) @ layer["mlp_in"]["kernel"][:, 0] + layer["mlp_in"]["bias"][0]
        y = y * 0.5 * (1 + erf(y / np.sqrt(2)))
        x = x + y @ layer["mlp_out"]["kernel"][0] + layer["mlp_out"]["bias"][0]
    return layer_norm(x, p["norm"])[:, 0]


def batch_norm(x, parts):
    if parts > 1:
        return np.concatenate([batch_norm(part, 1) for part in np.split(x, parts)])
    centred = x - x.mean(0)
    return centred / np.sqrt((centred**2).mean(0) + 1e-5)


def mlp(p, x, parts):
    """Linear, batch norm, ReLU, ..., Linear, batch norm without affine."""
    for i in range(len(p)):
        layer = p[f"layer_{i}"]
        x = batch_norm(x @ layer["kernel"], parts)
        if i < len(p) - 1:
            x = x * layer["scale"] + layer["bias"]
            x = np.where(x.real > 0, x, 0)
    return x


def contrastive(q, k, c):
    q, k = (x / np.sqrt((x**2).sum(1, keepdims=True)) for x in (q, k))
    logits = q @ k.T / c.temperature
    top = logits.real.max(1, keepdims=True)
    cross_entropy = np.log(np.exp(logits - top).sum(1)) + top[:, 0] - np.diag(logits)
    return cross_entropy.mean() * c.factor * c.temperature


def keys_of(momentum, views, c):
    return [
        mlp(momentum["projector"], encode(momentum["encoder"], view, c.patch), c.local_batches).real for view in views
    ]


def loss_of(p, keys, views, c):
    q1, q2 = (
        mlp(p["predictor"], mlp(p["projector"], encode(p["encoder"], view, c.patch), c.local_batches), c.local_batches)
        for view in views
    )
    first = contrastive(q1, keys[1], c)
    return first if c.one_sided else first + contrastive(q2, keys[0], c)  # complex


def moved(momentum, p, share):
    if isinstance(momentum, dict):
        return {name: moved(x, p[name], share) for name, x in momentum.items()}
    return share * momentum + (1 - share) * p


def leaves(tree: Any, path: tuple[str, ...] = ()):
    if isinstance(tree, dict):
        for name, x in tree.items():
            yield from leaves(x, (*path, name))
    else:
        yield path, tree


def put(tree, path, value):
    for name in path[:-1]:
        tree = tree[name]
    tree[path[-1]] = value


def gradients(p, keys, views, c, frozen=("encoder", "patch")):
    """The derivative by each number of each parameter; zero for frozen ones."""
    found, tree = copy.deepcopy(p), copy.deepcopy(p)
    for path, x in leaves(p):
        derivative = np.zeros(x.shape)
        if path[: len(frozen)] != frozen:
            moving = x.astype(complex)
            put(tree, path, moving)
            for index in np.ndindex(*x.shape):
                moving[index] += 1j * STEP
                derivative[index] = loss_of(tree, keys, views, c).imag / STEP
                moving[index] = x[index]
            put(tree, path, x)
        put(found, path, derivative)
    return found


def step_of(p, momentum, views, step, c):
    """Loss, keys and the momentum encoder of a step."""
    after = moved(momentum, {part: p[part] for part in momentum}, c.share(step))
    keys = keys_of(momentum if c.keys_first else after, views, c)
    return loss_of(p, keys, views, c), keys, after
