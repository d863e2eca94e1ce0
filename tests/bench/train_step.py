"""How long one MAE training step takes, beside the same model and optimizer of transformers on torch.

    python -m tests.bench.train_step [--case=base] [--repeats=7]

Forward, backward and AdamW update in float32 on the CPU. Both sides start from the same weights (torch draws them), see
the same images and the same mask noise, and must agree on the first loss to 1e-5. Then the sides take turns of a few
steps each; the first step of a turn is not counted, because it pays for the memory that the other side's turn has cost
it. Medians and minima are shown, of wall time and of processor time (which a busy machine disturbs less). Needs the
packages torch and transformers.
"""

import argparse
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from scaling.models.mae import MAEConfig, mask_noise
from scaling.models.positions import sincos_2d
from scaling.parallel.mesh import MeshConfig, batch_sharding, make_mesh
from scaling.training.config import StepConfig
from scaling.training.optimizer import OptimizerConfig
from scaling.training.step import TrainStep
from tests.bench.cpu_turns import Step, alternate, table
from tests.models.sizes import halves, mae
from tests.torch_only import declare_operators

declare_operators()
import transformers  # noqa: E402  needs them

SEED, LR = 0, 1e-4
TINY = {"image_size": 32, "patch_size": 4, "decoder_width": 128, "decoder_depth": 4, "decoder_heads": 4}
CASES = {  # name: model, images per step
    "base": (mae("vit_b", normalize_targets=False, unroll=True), 8),
    "tiny": (mae("vit_ti", normalize_targets=False, unroll=True, **TINY), 64),
}


def torch_model(c: MAEConfig) -> torch.nn.Module:
    """transformers' model of the same sizes.

    Its constructor leaves the fixed position embeddings zero (5.23: the guard in `initialize_weights` sees an already
    initialised projection), so they are filled in here.
    """
    torch.manual_seed(SEED)
    config = transformers.ViTMAEConfig(
        image_size=c.image_size,
        patch_size=c.patch_size,
        num_channels=c.bands,
        hidden_size=c.width,
        num_hidden_layers=c.depth,
        num_attention_heads=c.heads,
        intermediate_size=c.mlp,
        decoder_hidden_size=c.decoder.width,
        decoder_num_hidden_layers=c.decoder.depth,
        decoder_num_attention_heads=c.decoder.heads,
        decoder_intermediate_size=c.decoder.mlp,
        mask_ratio=c.mask_ratio,
        norm_pix_loss=c.normalize_targets,
        layer_norm_eps=c.norm_eps,
    )
    model = transformers.ViTMAEForPreTraining(config).train()
    for places in (model.vit.embeddings.position_embeddings, model.decoder.decoder_pos_embed):
        with torch.no_grad():
            places[0, 1:] = torch.from_numpy(sincos_2d(*c.grid, places.shape[-1]))
    return model


def blocks(state: dict[str, np.ndarray], prefix: str, like: Any) -> Any:
    """transformers' layers as one stacked tree with the shapes of `like`."""

    def stacked(name: str, kind: str) -> np.ndarray:
        depth = len(like["qkv"]["bias"])
        values = [state[f"{prefix}.{i}.{name}.{'bias' if kind == 'bias' else 'weight'}"] for i in range(depth)]
        return np.stack([v.T for v in values])  # [L, in, out]; a vector is its own transpose

    def group(kinds: tuple[str, str], *names: str) -> dict[str, np.ndarray]:
        # q, k and v are stacked in front of their outputs [heads, head_dim], which is where `qkv` stands
        return {kind: np.stack([stacked(name, kind) for name in names], axis=-2) for kind in kinds}

    dense, norm = ("kernel", "bias"), ("scale", "bias")
    tree = {
        "attention_norm": group(norm, "layernorm_before"),
        "qkv": group(dense, *(f"attention.{x}_proj" for x in "qkv")),
        "attention_out": group(dense, "attention.o_proj"),
        "mlp_norm": group(norm, "layernorm_after"),
        "mlp_in": group(dense, "mlp.fc1"),
        "mlp_out": group(dense, "mlp.fc2"),
    }
    return jax.tree.map(lambda x, y: x.reshape(y.shape), tree, like)


def our_params(model: torch.nn.Module, like: Any) -> Any:
    """transformers' weights in our tree, whose shapes are `like`. Fixed position embeddings are not parameters."""
    state = {name: value.detach().numpy() for name, value in model.state_dict().items()}

    def dense(name: str) -> dict[str, np.ndarray]:
        return {"kernel": state[f"{name}.weight"].T, "bias": state[f"{name}.bias"]}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {"scale": state[f"{name}.weight"], "bias": state[f"{name}.bias"]}

    stem = "vit.embeddings.patch_embeddings.projection"
    patch = state[f"{stem}.weight"].transpose(2, 3, 1, 0)  # [D, C, p, q] -> [p, q, C, D]
    tree = {
        "encoder": {
            "patch": {"kernel": patch.reshape(-1, patch.shape[-1]), "bias": state[f"{stem}.bias"]},
            "cls": {"token": state["vit.embeddings.cls_token"].ravel()},
            "blocks": blocks(state, "vit.layers", like["encoder"]["blocks"]),
            "norm": norm("vit.layernorm"),
        },
        "decoder": {
            "embed": dense("decoder.decoder_embed"),
            "mask": {"token": state["decoder.mask_token"].ravel()},
            "blocks": blocks(state, "decoder.decoder_layers", like["decoder"]["blocks"]),
            "norm": norm("decoder.decoder_norm"),
            "pixels": dense("decoder.decoder_pred"),
        },
    }
    return jax.tree.map(lambda x, y: np.array(x.reshape(y.shape)), tree, like)  # copies: torch updates in place


def our_step(c: MAEConfig, batch: int, model: torch.nn.Module, images: np.ndarray) -> Step:
    """A call that makes one update of our model and returns the loss before it."""
    optimizer = OptimizerConfig(base_lr=LR * 256 / batch)
    mean, std = (0.0,) * c.bands, (1.0,) * c.bands
    mesh_config = MeshConfig()
    mesh = make_mesh(mesh_config, jax.devices()[:1])
    config = StepConfig(*halves(c).values(), optimizer, mesh_config, SEED, 10**6, batch, "float32", mean, std)
    train_step = TrainStep(config, mesh)
    state = train_step.init()
    state.params = jax.device_put(our_params(model, state.params), train_step.formats.params)
    data = {"image": jax.device_put(images, batch_sharding(mesh))}

    def step() -> float:
        nonlocal state
        state, metrics = train_step.step(state, data)
        jax.block_until_ready(state)
        return float(metrics["loss"])

    return step


def torch_step(model: torch.nn.Module, images: np.ndarray, noise: np.ndarray) -> Step:
    """The same for transformers' model; its gradients are freed after the update."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.05)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())

    def step() -> float:
        loss = model(pixels, noise=torch.from_numpy(noise)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def run(name: str, repeats: int) -> None:
    c, batch = CASES[name]
    draw = np.random.default_rng(SEED)
    images = draw.standard_normal((batch, c.image_size, c.image_size, c.bands), dtype=np.float32)
    key = jax.random.fold_in(jax.random.key(SEED), 0)  # the masks of step 0
    noise = np.array(mask_noise(key, jnp.arange(batch), c.patches))
    model = torch_model(c)
    sides = {"ours": our_step(c, batch, model, images), "torch": torch_step(model, images, noise)}
    losses = {side: step() for side, step in sides.items()}
    print(f"{name}: batch {batch}; first loss " + ", ".join(f"{side} {loss:.6f}" for side, loss in losses.items()))
    np.testing.assert_allclose(losses["ours"], losses["torch"], rtol=0, atol=1e-5)
    table(alternate(sides, repeats), batch)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--case", choices=CASES, action="append", help="default: all")
    flags.add_argument("--repeats", type=int, default=7)
    options = flags.parse_args()
    print(
        f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}"
    )
    for name in options.case or CASES:
        run(name, options.repeats)


if __name__ == "__main__":
    main()
