"""The masked autoencoder of `scaling.models.mae` as plain torch, which `tests.bench.gpu` compares with.

Written in the usual way: pre-norm blocks of `nn.Linear` and `nn.LayerNorm`, one product for queries, keys and values,
`scaled_dot_product_attention`, exact GELU. It has the same savings as ours, so that programs are compared and not
algorithms: the decoder takes its tokens in the order visible, masked, and only the masked ones are predicted.
"""

import time
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from scaling.models.config import StackConfig
from scaling.models.mae import MAEConfig
from scaling.models.positions import sincos_2d
from tests.bench.turns import Side


class Block(nn.Module):
    def __init__(self, c: StackConfig):
        super().__init__()
        self.heads, inner = c.heads, c.heads * c.head_dim
        self.attention_norm = nn.LayerNorm(c.width, c.norm_eps)
        self.qkv, self.attention_out = nn.Linear(c.width, 3 * inner), nn.Linear(inner, c.width)
        self.mlp_norm = nn.LayerNorm(c.width, c.norm_eps)
        self.mlp_in, self.mlp_out = nn.Linear(c.width, c.mlp), nn.Linear(c.mlp, c.width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, tokens, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(batch, tokens, -1))
        return x + self.mlp_out(functional.gelu(self.mlp_in(self.mlp_norm(x))))


def take(x: Tensor, index: Tensor) -> Tensor:
    """x: [B, T, D], index: [B, K] -> [B, K, D]."""
    return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[-1]))


class MaskedAutoencoder(nn.Module):
    def __init__(self, c: MAEConfig):
        super().__init__()
        d = self.d = c.decoder
        self.c = c
        self.patch, self.cls = nn.Linear(c.patch_values, c.width), nn.Parameter(torch.zeros(c.width))
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width, c.norm_eps)
        self.embed, self.mask = nn.Linear(c.width, d.width), nn.Parameter(torch.zeros(d.width))
        self.decoder_blocks = nn.ModuleList(Block(d) for _ in range(d.depth))
        self.decoder_norm = nn.LayerNorm(d.width, d.norm_eps)
        self.pixels = nn.Linear(d.width, c.patch_values)
        for name, width in (("positions", c.width), ("decoder_positions", d.width)):
            self.register_buffer(name, torch.from_numpy(np.array(sincos_2d(*c.grid, width), np.float32)))

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """images: [B, h, w, C], noise: [B, T] -> mean squared error of the masked patches, []."""
        c, batch = self.c, len(images)
        order = noise.argsort(1)
        visible, masked = order[:, : c.visible], order[:, c.visible :]
        rows, columns = c.grid
        patches = images.view(batch, rows, c.patch_size, columns, c.patch_size, c.bands)
        patches = patches.permute(0, 1, 3, 2, 4, 5).reshape(batch, c.patches, c.patch_values)
        x = self.patch(take(patches, visible)) + self.positions[visible]
        x = torch.cat([self.cls.to(x.dtype).expand(batch, 1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        x = self.embed(self.norm(x))
        x = torch.cat([x, self.mask.to(x.dtype).expand(batch, c.patches - c.visible, -1)], 1)
        x = x + functional.pad(self.decoder_positions[order], (0, 0, 1, 0))
        for block in self.decoder_blocks:
            x = block(x)
        prediction = self.pixels(self.decoder_norm(x[:, c.visible - c.patches :]))
        target = take(patches, masked)
        mean, variance = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
        return (prediction.float() - (target - mean) / (variance + 1e-6).sqrt()).square().mean()


def loaded(c: MAEConfig, params: Any, device: str) -> MaskedAutoencoder:
    """The model with the weights of our tree."""
    model, params = MaskedAutoencoder(c), jax.tree.map(np.asarray, params)

    def copy(to: Tensor, value: Any) -> None:
        to.copy_(torch.from_numpy(np.array(value, np.float32)).reshape(to.shape))

    def linear(to: nn.Linear, kernel: Any, bias: Any) -> None:
        to.weight.copy_(torch.from_numpy(np.array(kernel, np.float32)).reshape(to.in_features, to.out_features).T)
        copy(to.bias, bias)

    def stack(to: nn.ModuleList, tree: Any) -> None:
        for i, block in enumerate(to):
            for name in ("attention_norm", "mlp_norm"):
                copy(getattr(block, name).weight, tree[name]["scale"][i])
                copy(getattr(block, name).bias, tree[name]["bias"][i])
            for name in ("qkv", "attention_out", "mlp_in", "mlp_out"):
                linear(getattr(block, name), tree[name]["kernel"][i], tree[name]["bias"][i])

    with torch.no_grad():
        e, d = params["encoder"], params["decoder"]
        for to, p in ((model.patch, e["patch"]), (model.embed, d["embed"]), (model.pixels, d["pixels"])):
            linear(to, p["kernel"], p["bias"])
        for norm, p in ((model.norm, e["norm"]), (model.decoder_norm, d["norm"])):
            copy(norm.weight, p["scale"])
            copy(norm.bias, p["bias"])
        copy(model.cls, e["cls"]["token"])
        copy(model.mask, d["mask"]["token"])
        stack(model.blocks, e["blocks"])
        stack(model.decoder_blocks, d["blocks"])
    return model.to(device)


def loss_of(model: MaskedAutoencoder, images: np.ndarray, noise: np.ndarray) -> float:
    """In float32, not TF32."""
    device = model.cls.device
    torch.set_float32_matmul_precision("highest")
    with torch.no_grad():
        return model(torch.from_numpy(images).to(device), torch.from_numpy(noise).to(device)).item()


def adamw(model: MaskedAutoencoder, lr: float) -> torch.optim.AdamW:
    """The optimizer of `scaling.training.optimizer`'s defaults: matrices decay, vectors do not."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)


def torch_side(c: MAEConfig, model: MaskedAutoencoder, images: np.ndarray, lr: float, compiled: bool) -> Side:
    """bfloat16 autocast, fused AdamW, `torch.compile` where `compiled`; masks are drawn on the device."""
    device = model.cls.device
    cuda = device.type == "cuda"
    torch.set_float32_matmul_precision("high")
    data, optimizer = torch.from_numpy(images).to(device), adamw(model, lr)
    forward = torch.compile(model) if compiled else model
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    loss = torch.zeros(())

    def step() -> None:
        nonlocal loss
        noise = torch.rand(len(data), c.patches, device=device)
        with torch.autocast(device.type, torch.bfloat16):
            value = forward(data, noise)
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss = value.detach()

    def wait() -> float:
        if cuda:
            torch.cuda.synchronize()
        return loss.item()

    began = time.perf_counter()
    step()
    wait()
    return Side(step, wait, lambda: torch.cuda.max_memory_allocated() if cuda else None, time.perf_counter() - began)
