"""Training steps of a model that compiles in seconds, on meshes of the fake devices."""

import functools
import math
from typing import Any

import jax
import numpy as np

from scaling.models.mae import MAEConfig
from scaling.parallel.mesh import MESH_AXES, MeshConfig, batch_sharding, make_mesh
from scaling.training.config import StepConfig
from scaling.training.optimizer import OptimizerConfig
from scaling.training.step import TrainStep
from tests.models.sizes import halves, small

BATCH = 16
MESHES = {
    "one device": (1, 1, 1),
    "fsdp 8": (1, 8, 1),
    "fsdp 4, tensor 2": (1, 4, 2),
    "replica 2, fsdp 4": (2, 4, 1),
}


@functools.cache
def train_step(mesh: tuple[int, int, int] = (1, 1, 1), **overrides: Any) -> TrainStep:
    """A small training step on the first replica * fsdp * tensor devices, every array split that can be split.

    `model` is an encoder, or encoder and decoder together. Compiled programs are kept for the next test that asks for
    the same one.
    """
    sizes = MeshConfig(**dict(zip(MESH_AXES, mesh, strict=True)), min_shard_elements=0)
    fields = {
        "optimizer": OptimizerConfig(base_lr=0.02, warmup=2),
        "mesh": sizes,
        "seed": 3,
        "steps": 40,
        "batch_size": BATCH,
        "dtype": "float32",
        "mean": (100.0, 110.0, 120.0),
        "std": (50.0, 60.0, 70.0),
    }
    model = overrides.pop("model", small(branches=2))
    networks = halves(model) if isinstance(model, MAEConfig) else {"model": model}
    config = StepConfig(**{**fields, **networks, **overrides})
    return TrainStep(config, make_mesh(sizes, jax.devices()[: math.prod(mesh)]))


@functools.cache
def images(step: int) -> np.ndarray:
    """The images of a step: smooth, so that there is something to learn. uint8 [BATCH, 16, 16, 3]."""
    rng = np.random.default_rng(step)
    phase, angle = rng.uniform(0, 6.3, (2, BATCH, 1, 1, 1))
    y, x = np.mgrid[:16, :16][..., None] / 3
    waves = np.sin(np.cos(angle) * x + np.sin(angle) * y + phase + np.arange(3) / 3)
    return (110 + 60 * waves + rng.normal(0, 4, waves.shape)).clip(0, 255).astype(np.uint8)


def on(t: TrainStep, **arrays: np.ndarray) -> dict[str, jax.Array]:
    """A batch on the devices of a training step."""
    return {name: jax.device_put(x, batch_sharding(t.mesh)) for name, x in arrays.items()}


def train(t: TrainStep, steps: int = 5, state: Any = None, start: int = 0) -> tuple[Any, list[dict[str, float]]]:
    """State after some steps on the images of those steps, and the metrics of each step."""
    state, rows = t.init() if state is None else state, []
    for step in range(start, start + steps):
        state, metrics = t.step(state, on(t, image=images(step)))
        rows.append({name: float(x) for name, x in metrics.items()})
    return state, rows


def losses(rows: list[dict[str, float]]) -> list[float]:
    return [row["loss"] for row in rows]


def assert_trees_equal(a: Any, b: Any) -> None:
    """Asserts equality to the last bit, wherever the arrays are."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)
