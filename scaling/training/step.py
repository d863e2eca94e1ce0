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

from scaling.compute.counting import training_flops
from scaling.core.errors import UserError
from scaling.objectives import Batch, Inputs
from scaling.parallel.mesh import batch_sharding, replicated
from scaling.parallel.sharding import sharding_of
from scaling.training.config import StepConfig
from scaling.training.optimizer import lr_schedule, make_optimizer, peak_lr
from scaling.training.parametrization import initial, multipliers
from scaling.training.state import AVERAGE, State, init_state, state_formats

PICTURED = 6  # images in a picture


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


class TrainStep:
    """An objective, its optimizer and their shardings on a mesh, and the functions compiled for them.

    Attributes:
      objective: the objective, which is minimised.
      names: axis names of the parameters.
      arrays: arrays of a batch that the objective takes, by name; shapes for one image.
      abstract, shardings: State of ShapeDtypeStruct and of NamedSharding.
      formats: State of the shardings and, if it matters, orders in memory that the compiled functions take and return.
        See `placed` for a state from elsewhere.
      init: () -> State, created sharded.
      start: params -> State before the first step, from parameters that are already sharded.
      step: (State, Batch) -> (State, metrics); the state is donated.
      evaluate: (params, extra, Batch) -> sums over the batch.
      picture: (params, Batch) -> arrays to draw for the first PICTURED held-out images; None if there is nothing to
        show.

    Raises:
      UserError: microbatches of an objective whose loss cannot be divided.
    """

    def __init__(self, config: StepConfig, mesh: Mesh):
        self.config, self.mesh = config, mesh
        inputs = Inputs(config.mean, config.std, jnp.dtype(config.dtype), config.steps, config.rgb)
        self.objective = objective = config.objective.make(config.model, inputs)
        if config.accumulate > 1 and not objective.divisible:
            raise UserError(
                f"accumulate={config.accumulate}: the loss of {config.objective.name} needs the whole batch, which "
                "cannot be divided; set accumulate=1 and a batch_size that fits"
            )
        self.names, self.arrays = objective.names, objective.abstract_batch(1)
        sizes = (config.parametrization, config.model, config.objective)
        self._multipliers = None if config.parametrization.name == "standard" else multipliers(*sizes)
        # Arguments of the compiled programs, not constants in them: runs that differ only in these share programs.
        seed, peak = np.int32(config.seed), np.float32(peak_lr(config.optimizer, config.batch_size))
        optimizer = self._optimizer(peak)

        def start(params: Any) -> State:
            return init_state(params, optimizer, objective.init_extra(params), config.ema_decay > 0)

        def create(seed: jax.Array) -> State:
            return start(initial(objective.init(seed), *sizes))

        self.abstract = jax.eval_shape(create, seed)
        extra_names = {**objective.extra_names, **({AVERAGE: self.names} if config.ema_decay else {})}
        self.formats = formats = state_formats(self.abstract, self.names, extra_names, optimizer, mesh, config.mesh)
        self.shardings = jax.tree.map(sharding_of, formats)
        self.init = self.compiled(create, (), formats, scalars=(seed,))
        self.start = self.compiled(start, (self.shardings.params,), formats)
        data, everywhere = batch_sharding(mesh), replicated(mesh)
        self.step = self.compiled(self._step, (formats, data), (formats, everywhere), (seed, peak), donate=(0,))
        evaluated = (formats.params, self.beside(formats), data)
        self.evaluate = self.compiled(self._evaluate, evaluated, everywhere)
        draws = objective.picture is not None
        self.picture = self.compiled(self._picture, (formats.params, data), everywhere) if draws else None

    def flops_per_image(self) -> int:
        """Operations of one image in a step, `full` convention; see `scaling.compute.counting.training_flops`."""
        return training_flops(self.names, self.abstract.params, self.config.objective.tokens(self.config.model))

    def flops_by_step(self) -> list[tuple[int, int]]:
        """`flops_per_image` over a run in which it changes: steps, and the operations in each step after them."""
        c = self.config
        phases = getattr(c.objective, "phases", None)
        if phases is None:
            return [(0, self.flops_per_image())]
        count = functools.partial(training_flops, self.names, self.abstract.params)
        return [(round(share * c.steps), count(tokens)) for share, tokens in phases(c.model)]

    def compiled(
        self,
        function: Callable[..., Any],
        inputs: tuple[Any, ...],
        outputs: Any,
        scalars: tuple[Any, ...] = (),
        donate: tuple[int, ...] = (),
    ) -> MeshFunction:
        """A function on this mesh, compiled when it is first called.

        Args:
          function: function of arrays followed by `scalars`.
          inputs, outputs: shardings or formats of the arrays and of the result.
          scalars: the last arguments of every call, on all devices.
          donate: indices of the arguments that are not needed afterwards.
        """
        inputs += (replicated(self.mesh),) * len(scalars)
        jitted = jax.jit(function, in_shardings=inputs, out_shardings=outputs, donate_argnums=donate)
        return MeshFunction(jitted, self.mesh, scalars)

    def placed(self, state: State) -> State:
        """A state that is sharded already, in the order in memory of `formats`; it is donated."""
        if self.formats == self.shardings:
            return state
        moved: State = self.compiled(lambda state: state, (self.shardings,), self.formats, donate=(0,))(state)
        return moved

    def _lr(self, peak: Any) -> optax.Schedule:
        return lr_schedule(self.config.optimizer, peak, self.config.steps)

    def _optimizer(self, peak: Any) -> optax.GradientTransformation:
        objective = self.objective
        return make_optimizer(
            self.config.optimizer, self._lr(peak), self.names, objective.below_head, self._multipliers
        )

    def beside(self, state: State) -> dict[str, Any]:
        """The auxiliary trees of the objective."""
        return {name: state.extra[name] for name in self.objective.extra_names}

    def _gradients(self, state: State, inputs: Batch) -> tuple[Batch, dict[str, Any], Any]:
        """Loss and further metrics, the objective's auxiliary trees, and gradients of a global batch; in
        microbatches if configured.
        """
        extra, parts = self.beside(state), self.config.accumulate
        gradients = jax.value_and_grad(self.objective.loss, has_aux=True)
        if parts == 1:
            (loss, (extra, metrics)), gradient = gradients(state.params, extra, inputs)
            return {"loss": loss, **metrics}, extra, gradient

        def one(x: Batch) -> tuple[Batch, Any]:
            (loss, (_, metrics)), gradient = gradients(state.params, extra, x)
            return {"loss": loss, **metrics}, gradient

        metrics, gradient = jax.tree.map(lambda x: x / parts, self._summed(one, inputs))
        some = jax.tree.map(lambda x: x[: x.shape[0] // parts], inputs)
        after = self.objective.loss(state.params, extra, some)[1][0] if extra else extra
        return metrics, after, gradient

    def _summed(self, function: Callable[[Batch], Any], inputs: Batch) -> Any:
        """Sum of a function's results over all microbatches."""
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

    def _evaluate(self, params: Any, extra: dict[str, Any], batch: Batch) -> Batch:
        """Evaluates in microbatches too: a batch that does not fit in training would not fit here."""
        return self._summed(functools.partial(self.objective.evaluate, params, extra), batch)

    def _picture(self, params: Any, batch: Batch) -> Batch:
        """Arrays to draw for the first few images, selected inside the program: selecting them on the host would
        replicate the whole batch on every device.
        """
        assert self.objective.picture is not None
        return self.objective.picture(params, {name: x[:PICTURED] for name, x in batch.items()})

    def _step(self, state: State, batch: Batch, seed: jax.Array, peak: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        found, extra, gradients = self._gradients(state, self.objective.inputs(seed, state.step, batch))
        updates, opt_state = self._optimizer(peak).update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if self.config.ema_decay:
            average = optax.incremental_update(params, state.extra[AVERAGE], 1 - self.config.ema_decay)
            extra = {**extra, AVERAGE: average}
        metrics = {
            **found,
            "lr": self._lr(peak)(state.step),
            "grad_norm": optax.global_norm(gradients),
            "param_norm": optax.global_norm(params),
        }
        return State(state.step + 1, params, opt_state, extra), metrics
