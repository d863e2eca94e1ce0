"""The jitted training and evaluation steps, of any objective on any mesh."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from scaling.parallel.mesh import batch_sharding, replicated
from scaling.training.config import StepConfig
from scaling.training.objectives import Batch, make_objective
from scaling.training.optimizer import lr_schedule, make_optimizer
from scaling.training.state import State, init_state, state_shardings


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
      objective: what is minimised.
      names: axis names of the parameters.
      abstract, shardings: State of ShapeDtypeStruct and of NamedSharding.
      init: () -> State, created sharded.
      start: params -> State before the first step, from parameters that lie sharded already.
      step: (State, Batch) -> (State, metrics); the state is donated.
      evaluate: (params, Batch) -> sums over the batch.
      reconstruct: (params, Batch) -> what is drawn of held-out images; None where there is nothing to see.
    """

    def __init__(self, config: StepConfig, mesh: Mesh):
        self.config, self.mesh = config, mesh
        self.objective = make_objective(config)
        self.names = self.objective.names
        self.lr = lr_schedule(config.optimizer, config.batch_size, config.steps)
        self.optimizer = make_optimizer(config.optimizer, self.lr, self.names, self.objective.below_head)

        def start(params: Any) -> State:
            return init_state(params, self.optimizer, config.average > 0)

        def create() -> State:
            return start(self.objective.init())

        self.abstract = jax.eval_shape(create)
        self.shardings = state_shardings(self.abstract, self.names, self.optimizer, mesh, config.mesh)
        self.init = self._jit(create, (), self.shardings)
        self.start = self._jit(start, (self.shardings.params,), self.shardings)
        data, everywhere = batch_sharding(mesh), replicated(mesh)
        self.step = self._jit(self._step, (self.shardings, data), (self.shardings, everywhere), donate=(0,))
        self.evaluate = self._jit(self.objective.evaluate, (self.shardings.params, data), everywhere)
        draw = self.objective.reconstruct
        self.reconstruct = self._jit(draw, (self.shardings.params, data), everywhere) if draw else None

    def _jit(
        self, function: Callable[..., Any], inputs: Any, outputs: Any, donate: tuple[int, ...] = ()
    ) -> "MeshFunction":
        jitted = jax.jit(function, in_shardings=inputs, out_shardings=outputs, donate_argnums=donate)
        return MeshFunction(jitted, self.mesh)

    def _loss(self, params: Any, inputs: Batch) -> jax.Array:
        return self.objective.losses(params, inputs).mean()

    def _gradients(self, state: State, inputs: Batch) -> tuple[jax.Array, Any]:
        """Loss and gradients of a global batch, in microbatches where asked."""
        parts = self.config.accumulate
        gradients = jax.value_and_grad(self._loss)
        if parts == 1:
            return gradients(state.params, inputs)
        # microbatch i takes rows i, i + parts, ...: each device keeps the images that it already holds
        micro = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), inputs)

        def add(total: Any, x: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradients(state.params, x)), None

        zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params))
        total, _ = jax.lax.scan(add, zero, micro)
        return jax.tree.map(lambda x: x / parts, total)

    def _step(self, state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        loss, gradients = self._gradients(state, self.objective.inputs(state.step, batch))
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
