"""Training steps of masked autoencoders, ours and torch's, in turns on one device; see `tests.bench.gpu`.

First both must give the same loss for the same weights, images and masks in float32, to 1e-4. Then they take turns of
about a second in one process; medians. If a batch does not fit, both halve it. Utilisation by the `full` convention:
recomputation does not count. Torch: SDPA, autocast to bfloat16, `torch.compile`, fused AdamW.

The step is that of `scaling.training.step.TrainStep`, rebuilt here because the original also imports the packages of
data and checkpoints; tests/bench/test_gpu.py checks that the two agree.
"""

import dataclasses
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from scaling.compute.counting import training_flops
from scaling.compute.hardware import peak_flops
from scaling.models import attention
from scaling.models.config import encoder_config
from scaling.models.mae import MAE, MAEConfig, abstract_mae, mae_inputs, mask_noise
from scaling.models.parameters import init_params
from scaling.models.variants import encoder
from scaling.objectives.mae import MaskedAutoencoding
from scaling.parallel.mesh import MeshConfig, make_mesh
from scaling.training.optimizer import OptimizerConfig, make_optimizer
from tests.bench.gpu_slim import TINY
from tests.bench.turns import Side, alternate, out_of_memory

SEED, LR = 0, 1e-4
TINY_DECODER = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}


def config(name: str, tiny: bool, fields: dict[str, Any]) -> MAEConfig:
    """The masked autoencoder around a named encoder, with fields set."""
    c = MaskedAutoencoding(**(TINY_DECODER if tiny else {})).with_encoder(encoder(name, **(TINY if tiny else {})))
    c = dataclasses.replace(c, **fields)
    c.check()
    return c


def optimizer_of(c: MAEConfig) -> optax.GradientTransformation:
    return make_optimizer(OptimizerConfig(), lambda step: LR, abstract_mae(c)[1])


def first_params(c: MAEConfig) -> Any:
    return jax.jit(lambda: init_params(MAE(c), SEED, *mae_inputs(c)))()


def train_step(c: MAEConfig, dtype: Any) -> Callable[..., Any]:
    """(state, images) -> (state, metrics): the function that `TrainStep` compiles, for float images on one device.

    The state is (step, parameters, state of the optimizer).
    """
    model, optimizer = MAE(c, jnp.dtype(dtype)), optimizer_of(c)

    def step(state: Any, images: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        count, params, opt_state = state
        noise = mask_noise(jax.random.fold_in(jax.random.key(SEED), count), jnp.arange(len(images)), c.patches)

        def loss_of(p: Any) -> jax.Array:
            result: Any = model.apply({"params": p}, images, noise)
            return result["loss"].mean()

        loss, gradients = jax.value_and_grad(loss_of)(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        params = optax.apply_updates(params, updates)
        norms = {"grad_norm": optax.global_norm(gradients), "param_norm": optax.global_norm(params)}
        return (count + 1, params, opt_state), {"loss": loss, **norms}

    return step


def our_side(c: MAEConfig, params: Any, images: np.ndarray) -> Side:
    """The compiled step; its memory is the compiler's plan: arguments, results and temporaries.

    Raises:
      UserError: attention by a kernel that this backend does not have.
    """
    attention.check(c, jax.devices()[0].platform, "bfloat16")
    state = (jnp.zeros((), jnp.int32), params, jax.jit(optimizer_of(c).init)(params))
    data, began = jax.device_put(images), time.perf_counter()
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):  # kernels of attention are taken on a mesh only
        compiled = jax.jit(train_step(c, jnp.bfloat16), donate_argnums=0).lower(state, data).compile()
    took = time.perf_counter() - began
    m: Any = compiled.memory_analysis()
    held = m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes - m.alias_size_in_bytes
    metrics: dict[str, jax.Array] = {}

    def step() -> None:
        nonlocal state, metrics
        state, metrics = compiled(state, data)

    return Side(step, lambda: float(jax.block_until_ready(metrics)["loss"]), lambda: held, took)


def check_losses(c: MAEConfig, params: Any, model: Any) -> tuple[float, float]:
    """The loss of both sides in float32 for the same weights, images and masks.

    Raises:
      AssertionError: they differ by more than 1e-4.
    """
    from tests.bench.gpu_torch import loss_of

    draw = np.random.default_rng(SEED)
    images = draw.standard_normal((2, c.image_size, c.image_size, c.bands), dtype=np.float32)
    noise = draw.random((2, c.patches), dtype=np.float32)
    with jax.default_matmul_precision("highest"):
        result: Any = jax.jit(MAE(c).apply)({"params": params}, images, noise)
    ours, theirs = float(result["loss"].mean()), loss_of(model, images, noise)
    assert abs(ours - theirs) < 1e-4, f"the models differ: loss {ours:.6f} here, {theirs:.6f} in torch"
    return ours, theirs


def sides_of(c: MAEConfig, batch: int, compiled: bool) -> dict[str, Side]:
    """Ours, and torch's where it is installed, with the same weights and images."""
    images = np.random.default_rng(SEED).standard_normal((batch, c.image_size, c.image_size, c.bands), np.float32)
    params = first_params(c)
    try:
        import torch
    except ImportError:
        print("torch is not installed: no comparison")
        return {"scaling": our_side(c, params, images)}
    from tests.bench.gpu_torch import loaded, torch_side

    device = "cuda" if jax.devices()[0].platform == "gpu" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU and jax does: install torch with CUDA, or uninstall it")
    model = loaded(c, params, device)
    print("loss in float32: ours {:.6f}, torch {:.6f}".format(*check_losses(c, params, model)))
    return {"scaling": our_side(c, params, images), "torch": torch_side(c, model, images, LR, compiled)}


def rows(model: str, c: MAEConfig, batch: int, repeats: int, tiny: bool) -> Iterator[dict[str, Any]]:
    """One row a side; both with half the images as long as they do not fit together."""
    batch = min(batch, 4) if tiny else batch
    while True:
        sides: dict[str, Side] = {}
        try:
            sides = sides_of(c, batch, compiled=not tiny)
            seconds = alternate({side: (s.step, s.wait) for side, s in sides.items()}, repeats, 0.01 if tiny else 1)
            break
        except Exception as e:
            if not out_of_memory(e) or batch == 1:
                raise
        sides.clear()
        _free()
        print(f"{model}: {batch} images do not fit, {batch // 2} follow")
        batch //= 2
    shapes, names = abstract_mae(c)
    per_image = training_flops(names, shapes, MaskedAutoencoding.of(c).tokens(encoder_config(c)))
    peak = peak_flops(jax.devices()[0].device_kind)
    for side, s in sides.items():
        median = statistics.median(seconds[side])
        yield {
            "bench": "train",
            "model": model,
            "side": side,
            "batch": batch,
            "step_seconds": median,
            "step_seconds_min": min(seconds[side]),
            "images_per_second": batch / median,
            "mfu": batch / median * per_image / peak if peak else None,
            "memory_gib": (s.memory() or 0) / 2**30 or None,
            "compile_seconds": s.compile_seconds,
            "loss": s.wait(),
            "flops_per_image": per_image,
        }
    sides.clear()
    _free()


def _free() -> None:
    """Frees the memory of the last models."""
    gc.collect()
    jax.clear_caches()
    if torch := sys.modules.get("torch"):
        torch.compiler.reset()
        torch.cuda.empty_cache()
