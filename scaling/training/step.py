"""The jitted training and evaluation steps of MAE pretraining."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from scaling.data.pipeline import normalise
from scaling.models.mae import MAE, MAEConfig, abstract_mae, mae_inputs, mask_noise
from scaling.models.parameters import init_params
from scaling.parallel.mesh import MeshConfig, batch_sharding, replicated
from scaling.training.config import TrainConfig
from scaling.training.optimizer import OptimizerConfig, lr_schedule, make_optimizer
from scaling.training.state import State, init_state, state_shardings

Batch = dict[str, jax.Array]
EVALUATION = 2**31 - 1  # the "step" whose masks evaluation uses; no training step reaches it


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """All that the compiled step depends on; `tpu.preflight` compiles from the same description.

    Attributes:
      mean, std: of each band in the units of the data; images are normalised on the device.
      accumulate: number of microbatches whose gradients are averaged before an update.
      average: decay of the moving average of the parameters; 0 keeps none.
    """

    model: MAEConfig
    optimizer: OptimizerConfig
    mesh: MeshConfig
    seed: int
    steps: int
    batch_size: int
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    accumulate: int = 1
    average: float = 0.0


def step_config(c: TrainConfig, platform: str) -> StepConfig:
    """What the step of a run depends on; `platform` (cpu, tpu, ...) decides what dtype `auto` is."""
    dtype = c.dtype
    if dtype == "auto":
        dtype = "float32" if platform == "cpu" else "bfloat16"
    fields = ("model", "optimizer", "mesh", "seed", "steps", "batch_size", "accumulate", "average")
    values = {field: getattr(c, field) for field in fields}
    return StepConfig(dtype=dtype, mean=c.data.mean, std=c.data.std, **values)


@dataclasses.dataclass(frozen=True)
class MeshFunction:
    """A jitted function and the mesh under which it is traced, called or lowered."""

    jitted: Any
    mesh: Mesh

    def __call__(self, *args: Any) -> Any:
        with jax.set_mesh(self.mesh):
            return self.jitted(*args)

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """The traced function for arguments of these shapes, to be compiled without being called."""
        with jax.set_mesh(self.mesh):
            return self.jitted.lower(*args)


class Trainer:
    """A model, its optimizer and their shardings on a mesh, and the functions compiled for them.

    Attributes:
      model, names: the flax module and the axis names of its parameters.
      abstract, shardings: State of ShapeDtypeStruct and of NamedSharding.
      init: () -> State, created sharded.
      step: (State, Batch) -> (State, metrics); the state is donated.
      evaluate: (params, Batch) -> sums over the batch.
    """

    def __init__(self, config: StepConfig, mesh: Mesh):
        self.config, self.mesh = config, mesh
        c = config.model
        self.model = MAE(c, jnp.dtype(config.dtype))
        _, self.names = abstract_mae(c)
        self.lr = lr_schedule(config.optimizer, config.batch_size, config.steps)
        self.optimizer = make_optimizer(config.optimizer, self.lr, self.names)

        def create() -> State:
            return init_state(init_params(self.model, config.seed, *mae_inputs(c)), self.optimizer, config.average > 0)

        self.abstract = jax.eval_shape(create)
        self.shardings = state_shardings(self.abstract, self.names, self.optimizer, mesh, config.mesh)
        self.init = self._jit(create, (), self.shardings)
        data = batch_sharding(mesh)
        self.step = self._jit(self._step, (self.shardings, data), (self.shardings, replicated(mesh)), donate=(0,))
        self.evaluate = self._jit(self._evaluate, (self.shardings.params, data), replicated(mesh))
        self.reconstruct = self._jit(self._reconstruct, (self.shardings.params, data), replicated(mesh))

    def _jit(
        self, function: Callable[..., Any], inputs: Any, outputs: Any, donate: tuple[int, ...] = ()
    ) -> "MeshFunction":
        jitted = jax.jit(function, in_shardings=inputs, out_shardings=outputs, donate_argnums=donate)
        return MeshFunction(jitted, self.mesh)

    def _normalize(self, images: jax.Array) -> jax.Array:
        return normalise(images, self.config.mean, self.config.std)

    def _noise(self, step: jax.Array | int, rows: jax.Array) -> jax.Array:
        """Mask noise of the images in the given rows of a step's global batch. [B] -> [B, T]."""
        key = jax.random.fold_in(jax.random.key(self.config.seed), step)
        return mask_noise(key, rows, self.config.model.patches)

    def _apply(self, params: Any, images: jax.Array, noise: jax.Array) -> dict[str, jax.Array]:
        result: Any = self.model.apply({"params": params}, self._normalize(images), noise)
        return result

    def _loss(self, params: Any, images: jax.Array, noise: jax.Array) -> jax.Array:
        return self._apply(params, images, noise)["loss"].mean()

    def _gradients(self, state: State, images: jax.Array) -> tuple[jax.Array, Any]:
        """Loss and gradients of a global batch, in microbatches where asked. images: [B, h, w, C]."""
        parts = self.config.accumulate
        noise = self._noise(state.step, jnp.arange(images.shape[0]))
        gradients = jax.value_and_grad(self._loss)
        if parts == 1:
            return gradients(state.params, images, noise)
        # microbatch i takes rows i, i + parts, ...: each device keeps the images that it already holds
        micro = [x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1) for x in (images, noise)]

        def add(total: Any, x: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradients(state.params, *x)), None

        zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params))
        total, _ = jax.lax.scan(add, zero, tuple(micro))
        return jax.tree.map(lambda x: x / parts, total)

    def _step(self, state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        loss, gradients = self._gradients(state, batch["image"])
        updates, opt_state = self.optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if self.config.average:
            average = optax.incremental_update(params, average, 1 - self.config.average)
        metrics = {
            "loss": loss,
            "lr": self.lr(state.step),
            "grad_norm": optax.global_norm(gradients),
            "param_norm": optax.global_norm(params),
        }
        return State(state.step + 1, params, opt_state, average), metrics

    def _evaluate(self, params: Any, batch: Batch) -> dict[str, jax.Array]:
        """Weighted sums over a batch of held-out images with masks that depend on the image's position alone."""
        noise = self._noise(EVALUATION, batch["index"])
        loss = self._apply(params, batch["image"], noise)["loss"]
        return {"loss": (loss * batch["weight"]).sum(), "weight": batch["weight"].sum()}

    def _reconstruct(self, params: Any, batch: Batch) -> dict[str, jax.Array]:
        """Predictions for held-out images: see `MAE.__call__`, plus the normalised images."""
        result = self._apply(params, batch["image"], self._noise(EVALUATION, batch["index"]))
        return {
            "images": self._normalize(batch["image"]),
            "prediction": result["prediction"],
            "masked": result["masked"],
        }
