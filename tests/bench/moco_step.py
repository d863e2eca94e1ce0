"""How long one step of momentum contrast takes, beside the same encoder, heads, views and optimizer in torch.

    python -m tests.bench.moco_step [--batch=128] [--repeats=3]

ViT-Ti/8 at 64 pixels with heads of `moco_ti8.py`, float32 on the CPU: the momentum update, keys, queries of both views,
the loss, its gradients and AdamW. Both sides start from the same weights and see the same views; their first losses
must agree to 1e-4. Turns and tables are those of `tests.bench.train_step`. Needs torch.
"""

import argparse
import copy
import dataclasses
import itertools
import os
from typing import Any

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from scaling.models.vit import patchify, position_embedding
from scaling.parallel.mesh import batch_sharding, make_mesh
from scaling.training.config import TrainConfig, step_config
from scaling.training.step import TrainStep
from tests.bench.cpu_turns import Step, alternate, table
from tpu.compiler.table import load

LR = 1e-4


class Block(nn.Module):
    def __init__(self, width: int, heads: int, mlp: int):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.qkv, self.attention_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, mlp), nn.Linear(mlp, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        qkv = self.qkv(self.attention_norm(x)).reshape(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(*qkv).transpose(1, 2).reshape(b, t, d)
        x = x + self.attention_out(y)
        return x + self.mlp_out(functional.gelu(self.mlp_in(self.mlp_norm(x))))


def heads_of(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        last = i == len(sizes) - 2
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs, affine=not last)]
        layers += [] if last else [nn.ReLU()]
    return nn.Sequential(*layers)


class Base(nn.Module):
    """Encoder and projector."""

    def __init__(self, c: TrainConfig):
        super().__init__()
        m, o = c.model, c.objective
        self.patch = nn.Linear(m.patch_values, m.width).requires_grad_(False)
        self.cls, self.norm = nn.Parameter(torch.zeros(m.width)), nn.LayerNorm(m.width, eps=1e-6)
        self.register_buffer("places", torch.from_numpy(np.array(position_embedding({}, m))))
        self.blocks = nn.ModuleList(Block(m.width, m.heads, m.mlp) for _ in range(m.depth))
        self.projector = heads_of([m.width, o.hidden, o.hidden, o.outputs])

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        x = self.patch(patches) + self.places
        x = torch.cat([self.cls.expand(len(x), 1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.projector(self.norm(x)[:, 0])


def fill(module: nn.Module, p: Any) -> None:
    """A linear layer or a norm from ours: [*inputs, *outputs] -> [outputs, inputs]."""
    kernel = np.array(p["kernel" if "kernel" in p else "scale"])
    bias = np.array(p["bias"]).ravel() if module.bias is not None else None
    weight = kernel if kernel.ndim == 1 else kernel.reshape(module.weight.shape[1], -1).T
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(weight.copy()))
        if bias is not None:
            module.bias.copy_(torch.from_numpy(bias))


def fill_heads(heads: nn.Sequential, p: Any) -> None:
    for i in range(len(p)):
        layer = p[f"layer_{i}"]
        fill(heads[3 * i], {"kernel": layer["kernel"]})
        if "scale" in layer:
            fill(heads[3 * i + 1], {"scale": layer["scale"], "bias": layer["bias"]})


def torch_step(c: TrainConfig, params: Any, views: list[np.ndarray]) -> Step:
    base, o = Base(c).train(), c.objective
    predictor = heads_of([o.outputs, o.hidden, o.outputs]).train()
    p = params["encoder"]
    fill(base.patch, p["patch"])
    fill(base.norm, p["norm"])
    with torch.no_grad():
        base.cls.copy_(torch.from_numpy(np.array(p["cls"]["token"])))
    for i, block in enumerate(base.blocks):
        for name in ("attention_norm", "qkv", "attention_out", "mlp_norm", "mlp_in", "mlp_out"):
            fill(getattr(block, name), jax.tree.map(lambda x, i=i: np.asarray(x)[i], p["blocks"][name]))
    fill_heads(base.projector, params["projector"])
    fill_heads(predictor, params["predictor"])
    momentum = copy.deepcopy(base).requires_grad_(False)
    trained = [x for x in [*base.parameters(), *predictor.parameters()] if x.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, betas=(0.9, c.optimizer.beta2), weight_decay=c.optimizer.weight_decay)
    pair = [torch.from_numpy(patchify(view, c.model.patch_size)) for view in views]

    def contrast(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        logits = functional.normalize(query) @ functional.normalize(key).T / o.temperature
        return functional.cross_entropy(logits, torch.arange(len(logits))) * 2 * o.temperature

    def step() -> float:
        queries = [predictor(base(view)) for view in pair]
        with torch.no_grad():
            for slow, new in zip(momentum.parameters(), base.parameters(), strict=True):
                slow.mul_(o.momentum).add_(new, alpha=1 - o.momentum)
            keys = [momentum(view) for view in pair]
        loss = contrast(queries[0], keys[1]) + contrast(queries[1], keys[0])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--batch", type=int, default=128)
    flags.add_argument("--repeats", type=int, default=3)
    options = flags.parse_args()
    batch, c = options.batch, load("moco_ti8.py")
    optimizer = dataclasses.replace(c.optimizer, base_lr=LR * 256 / batch, warmup=0)
    data = dataclasses.replace(c.data, mean=(0.0,) * 3, std=(1.0,) * 3)
    model = dataclasses.replace(c.model, unroll=True)
    c = dataclasses.replace(c, batch_size=batch, steps=10**6, optimizer=optimizer, data=data, model=model)
    mesh = make_mesh(c.mesh, jax.devices()[:1])
    train_step = TrainStep(step_config(c, "cpu"), mesh)
    state = train_step.init()
    draw = np.random.default_rng(0)
    views = [draw.standard_normal((batch, 64, 64, 3), dtype=np.float32) for _ in range(2)]
    arrays = {name: jax.device_put(x, batch_sharding(mesh)) for name, x in zip(train_step.arrays, views, strict=True)}
    theirs = torch_step(c, jax.device_get(state.params), views)

    def ours() -> float:
        nonlocal state
        state, metrics = train_step.step(state, arrays)
        jax.block_until_ready(state)
        return float(metrics["loss"])

    sides = {"ours": ours, "torch": theirs}
    losses = {side: step() for side, step in sides.items()}
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    print(f"batch {batch}; first loss " + ", ".join(f"{side} {loss:.6f}" for side, loss in losses.items()))
    np.testing.assert_allclose(losses["ours"], losses["torch"], rtol=1e-4)
    table(alternate(sides, options.repeats), batch)


if __name__ == "__main__":
    main()
