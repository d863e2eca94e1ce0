"""The jitted training and evaluation steps, of any objective on any mesh."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from scaling.models.mae import MAEConfig
from scaling.parallel.mesh import batch_sharding, replicated
from scaling.training.config import StepConfig
from scaling.training.objectives import Batch, make_objective
from scaling.training.optimizer import lr_schedule, make_optimizer, peak_lr
from scaling.training.parametrization import Multipliers, multipliers
from scaling.training.state import State, init_state, state_shardings

PANEL_IMAGES = 6


@dataclasses.dataclass(frozen=True)
class MeshFunction:
    """A jitted function, the mesh under which it is traced, called or lowered, and its last arguments."""

    jitted: Any
    mesh: Mesh
    scalars: tuple[Any, ...] = ()

    def __call__(self, *args: Any) -> Any:
        with jax.set_mesh(self.mesh):
            return self.jitted(*args, *self.scalars)

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """The traced function for arguments of these shapes, to be compiled without being called."""
        with jax.set_mesh(self.mesh):
            return self.jitted.lower(*args, *self.scalars)


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
      reconstruct: (params, Batch) -> what is drawn of the first PANEL_IMAGES held-out images; None where there is
        nothing to see.
    """

    def __init__(self, config: StepConfig, mesh: Mesh):
        self.config, self.mesh = config, mesh
        self.objective = make_objective(config)
        self.names = self.objective.names
        self._multipliers = self._parametrization_multipliers()
        # Arguments of the compiled programs, not constants in them: runs that differ in nothing else share these.
        seed, peak = np.int32(config.seed), np.float32(peak_lr(config.optimizer, config.batch_size))
        optimizer = self._optimizer(peak)

        def start(params: Any) -> State:
            return init_state(params, optimizer, config.average > 0)

        def create(seed: jax.Array) -> State:
            return start(self.objective.init(seed))

        self.abstract = jax.eval_shape(create, seed)
        self.shardings = state_shardings(self.abstract, self.names, optimizer, mesh, config.mesh)
        self.init = self._jit(create, (), self.shardings, scalars=(seed,))
        self.start = self._jit(start, (self.shardings.params,), self.shardings)
        data, everywhere = batch_sharding(mesh), replicated(mesh)
        stepped = (self.shardings, everywhere)
        self.step = self._jit(self._step, (self.shardings, data), stepped, (seed, peak), donate=(0,))
        self.evaluate = self._jit(self._evaluate, (self.shardings.params, data), everywhere)
        draws = self.objective.reconstruct is not None
        self.reconstruct = self._jit(self._reconstruct, (self.shardings.params, data), everywhere) if draws else None

    def _jit(
        self,
        function: Callable[..., Any],
        inputs: tuple[Any, ...],
        outputs: Any,
        scalars: tuple[Any, ...] = (),
        donate: tuple[int, ...] = (),
    ) -> "MeshFunction":
        inputs += (replicated(self.mesh),) * len(scalars)
        jitted = jax.jit(function, in_shardings=inputs, out_shardings=outputs, donate_argnums=donate)
        return MeshFunction(jitted, self.mesh, scalars)

    def _parametrization_multipliers(self) -> Multipliers | None:
        c = self.config
        if c.parametrization.name == "standard":
            return None
        assert isinstance(c.model, MAEConfig)  # nothing else is trained from the start
        return multipliers(c.parametrization, c.model, self.names)

    def _lr(self, peak: Any) -> optax.Schedule:
        return lr_schedule(self.config.optimizer, peak, self.config.steps)

    def _optimizer(self, peak: Any) -> optax.GradientTransformation:
        objective = self.objective
        return make_optimizer(
            self.config.optimizer, self._lr(peak), self.names, objective.below_head, self._multipliers
        )

    def _loss(self, params: Any, inputs: Batch) -> jax.Array:
        return self.objective.losses(params, inputs).mean()

    def _gradients(self, state: State, inputs: Batch) -> tuple[jax.Array, Any]:
        """Loss and gradients of a global batch, in microbatches where asked."""
        parts, gradients = self.config.accumulate, jax.value_and_grad(self._loss)
        total = self._summed(lambda x: gradients(state.params, x), inputs)
        return total if parts == 1 else jax.tree.map(lambda x: x / parts, total)

    def _summed(self, function: Callable[[Batch], Any], inputs: Batch) -> Any:
        """What a function says of every microbatch, added up."""
        parts = self.config.accumulate
        if parts == 1:
            return function(inputs)
        # microbatch i takes rows i, i + parts, ...: each device keeps the images that it already holds
        micro = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), inputs)

        def add(total: Any, x: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, function(x)), None

        one = jax.eval_shape(function, jax.tree.map(lambda x: x[0], micro))
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), one)
        return jax.lax.scan(add, zero, micro)[0]

    def _evaluate(self, params: Any, batch: Batch) -> dict[str, jax.Array]:
        """In microbatches too: what was too much for training at once is not asked for here."""
        return self._summed(functools.partial(self.objective.evaluate, params), batch)

    def _reconstruct(self, params: Any, batch: Batch) -> dict[str, jax.Array]:
        """Of a few images, taken here and not on the host: of many every device would get a copy of all."""
        assert self.objective.reconstruct is not None
        return self.objective.reconstruct(params, {name: x[:PANEL_IMAGES] for name, x in batch.items()})

    def _step(self, state: State, batch: Batch, seed: jax.Array, peak: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        loss, gradients = self._gradients(state, self.objective.inputs(seed, state.step, batch))
        updates, opt_state = self._optimizer(peak).update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if self.config.average:
            average = optax.incremental_update(params, average, 1 - self.config.average)
        metrics = {
            "loss": loss,
            "lr": self._lr(peak)(state.step),
            "grad_norm": optax.global_norm(gradients),
            "param_norm": optax.global_norm(params),
        }
        return State(state.step + 1, params, opt_state, average), metrics
