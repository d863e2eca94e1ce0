"""How long one training step of UperNet on ViT-Ti takes, beside the same model and optimizer in torch.

    python -m tests.bench.segment_step [--size=256] [--batch=4] [--channels=512] [--repeats=7]

Forward, backward and AdamW update in float32 on the CPU: pyramid, pyramid pooling, feature pyramid and auxiliary head
with batch norm, as published, without dropout. Both sides start from the same weights, see the same images and masks,
and must agree on the first loss to 1e-4 of it. The sides take turns; see `tests.bench.cpu_turns`. Needs torch.
"""

import argparse
import os
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from scaling.data.arrays import normalise
from scaling.models.positions import sincos_2d
from scaling.models.segmenter import SegmenterConfig
from scaling.models.variants import encoder
from scaling.parallel.mesh import MeshConfig, batch_sharding, make_mesh
from scaling.tasks.segmentation import Segmenting
from scaling.training.config import StepConfig
from scaling.training.optimizer import OptimizerConfig
from scaling.training.step import TrainStep
from tests.bench.cpu_turns import Step, alternate, table
from tests.bench.gpu_torch import Block, adamw

SEED, LR, IGNORE = 0, 1e-4, 255
CLASSES = ("impervious", "building", "low vegetation", "tree", "car", "clutter")
POOLED = (1, 2, 3, 6)


class Module(nn.Sequential):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int = 1):
        conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class UperNet(nn.Module):
    """Images and masks to the loss, as mmsegmentation and RVSA write it."""

    def __init__(self, c: SegmenterConfig):
        super().__init__()
        self.c, width, channels = c, c.width, c.channels
        self.patch, self.cls = nn.Conv2d(c.bands, width, c.patch_size, c.patch_size), nn.Parameter(torch.zeros(width))
        self.register_buffer("positions", torch.from_numpy(sincos_2d(*c.grid, width)))
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.up4_first, self.up4_norm = nn.ConvTranspose2d(width, width, 2, 2), nn.BatchNorm2d(width)
        self.up4_second, self.up2 = nn.ConvTranspose2d(width, width, 2, 2), nn.ConvTranspose2d(width, width, 2, 2)
        self.pool = nn.ModuleList(Module(width, channels) for _ in POOLED)
        self.bottleneck = Module(width + len(POOLED) * channels, channels, 3)
        self.lateral = nn.ModuleList(Module(width, channels) for _ in range(3))
        self.smooth = nn.ModuleList(Module(channels, channels, 3) for _ in range(3))
        self.fusion, self.classes = Module(4 * channels, channels, 3), nn.Conv2d(channels, c.classes, 1)
        self.auxiliary = Module(width, c.auxiliary_channels, 3)
        self.auxiliary_classes = nn.Conv2d(c.auxiliary_channels, c.classes, 1)

    def maps(self, images: Tensor) -> list[Tensor]:
        """images: [B, C, h, w] -> tokens behind four blocks as maps."""
        x = self.patch(images).flatten(2).transpose(1, 2) + self.positions
        x, found = torch.cat([self.cls.expand(len(x), 1, -1), x], 1), []
        for i, block in enumerate(self.blocks, 1):
            x = block(x)
            if i in self.c.taken:
                found.append(x[:, 1:].transpose(1, 2).reshape(len(x), -1, *self.c.grid))
        return found

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        a, b, c, d = self.maps(images)
        a = self.up4_second(functional.gelu(self.up4_norm(self.up4_first(a))))
        levels, top = [a, self.up2(b), c], functional.max_pool2d(d, 2, 2)
        pooled = [
            resize(m(functional.adaptive_avg_pool2d(top, s)), top) for s, m in zip(POOLED, self.pool, strict=True)
        ]
        merged = [m(x) for m, x in zip(self.lateral, levels, strict=True)]
        merged.append(self.bottleneck(torch.cat([top, *pooled], 1)))
        for i in (3, 2, 1):
            merged[i - 1] = merged[i - 1] + resize(merged[i], merged[i - 1])
        smooth = [m(x) for m, x in zip(self.smooth, merged[:3], strict=True)] + [merged[3]]
        fused = self.fusion(torch.cat([resize(x, smooth[0]) for x in smooth], 1))
        beside = self.auxiliary_classes(self.auxiliary(c))
        return loss_of(self.classes(fused), labels) + 0.4 * loss_of(beside, labels)


def resize(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(resize(logits, labels), labels, ignore_index=IGNORE)


def put(to: Tensor, value: Any) -> None:
    to.copy_(torch.from_numpy(np.array(value, np.float32)).reshape(to.shape))


def load_blocks(to: nn.ModuleList, tree: Any) -> None:
    """tree: of parameters [L, ...]."""
    for i, block in enumerate(to):
        for name, group in tree.items():
            layer = getattr(block, name)
            if "scale" in group:
                put(layer.weight, group["scale"][i])
            else:
                put(layer.weight, group["kernel"][i].reshape(layer.in_features, -1).T)
            put(layer.bias, group["bias"][i])


def loaded(c: SegmenterConfig, params: Any) -> UperNet:
    """The model with the weights of our tree."""
    model, params = UperNet(c), jax.tree.map(np.asarray, params)
    e, h = params["encoder"], params["head"]

    def conv(to: nn.Module, name: str) -> None:
        order = (2, 3, 0, 1) if isinstance(to, nn.ConvTranspose2d) else (3, 2, 0, 1)
        put(to.weight, h[name]["kernel"].transpose(order))
        if to.bias is not None:
            put(to.bias, h[name]["bias"])

    def module(to: nn.Module, name: str) -> None:
        conv(to[0], name)  # its norm begins as ours does

    with torch.no_grad():
        kernel = e["patch"]["kernel"].reshape(c.patch_size, c.patch_size, c.bands, c.width)
        put(model.patch.weight, kernel.transpose(3, 2, 0, 1))
        put(model.patch.bias, e["patch"]["bias"])
        put(model.cls, e["cls"]["token"])
        load_blocks(model.blocks, e["blocks"])
        for name in ("up4_first", "up4_second", "up2", "classes", "auxiliary_classes"):
            conv(getattr(model, name), name)
        for name in ("bottleneck", "fusion", "auxiliary"):
            module(getattr(model, name), name)
        for i in range(3):
            module(model.lateral[i], f"lateral_{i}")
            module(model.smooth[i], f"smooth_{i}")
        for bins, to in zip(POOLED, model.pool, strict=True):
            module(to, f"pool_{bins}")
    return model.train()


def our_step(config: StepConfig, batch: dict[str, np.ndarray]) -> tuple[Step, Any]:
    """A call that makes one update of our model and returns the loss before it; and the weights it begins with."""
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    train_step = TrainStep(config, mesh)
    state = train_step.init()
    params = jax.tree.map(np.array, state.params)
    data = {name: jax.device_put(x, batch_sharding(mesh)) for name, x in batch.items()}

    def step() -> float:
        nonlocal state
        state, metrics = train_step.step(state, data)
        jax.block_until_ready(state)
        return float(metrics["loss"])

    return step, params


def torch_step(model: UperNet, batch: dict[str, np.ndarray], config: StepConfig) -> Step:
    optimizer = adamw(model, LR)
    images = normalise(batch["image"], config.mean, config.std)
    pixels = torch.from_numpy(np.array(images).transpose(0, 3, 1, 2).copy())
    labels = torch.from_numpy(batch["mask"].astype(np.int64))

    def step() -> float:
        loss = model(pixels, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def run(size: int, batch: int, channels: int, repeats: int) -> None:
    task = Segmenting(classes=CLASSES, ignore=IGNORE, channels=channels, dropout=0.0)
    model = encoder("vit_ti", image_size=size, unroll=True)
    draw = np.random.default_rng(SEED)
    data = {
        "image": draw.integers(0, 256, (batch, size, size, 3), dtype=np.uint8),
        "mask": draw.choice(np.array([*range(len(CLASSES)), IGNORE], np.uint8), (batch, size, size)),
    }
    optimizer, normal = OptimizerConfig(base_lr=LR * 256 / batch, warmup=0), {"mean": (128.0,) * 3, "std": (74.0,) * 3}
    config = StepConfig(
        model, task, optimizer, MeshConfig(), SEED, steps=10**6, batch_size=batch, dtype="float32", **normal
    )
    ours, params = our_step(config, data)
    sides = {"ours": ours, "torch": torch_step(loaded(task.with_encoder(model), params), data, config)}
    losses = {side: step() for side, step in sides.items()}
    first = ", ".join(f"{side} {loss:.6f}" for side, loss in losses.items())
    print(f"{size} px, batch {batch}, {channels} channels; first loss {first}")
    np.testing.assert_allclose(losses["ours"], losses["torch"], rtol=1e-4)
    table(alternate(sides, repeats), batch)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("size", 256), ("batch", 4), ("channels", 512), ("repeats", 7)):
        flags.add_argument(f"--{name}", type=int, default=default)
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{cores} cores, load {load:.1f}, jax {jax.__version__}, torch {torch.__version__}")
    run(**vars(flags.parse_args()))


if __name__ == "__main__":
    main()
