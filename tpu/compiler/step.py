"""The training step of a config, compiled ahead of time for a slice you do not have."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.compilation_cache import compilation_cache

from scaling.parallel.mesh import check_batch, make_mesh
from scaling.slimming.cutting import cut_shapes
from scaling.training.config import FinetuneConfig, TrainConfig, step_config
from scaling.training.state import bytes_per_device
from scaling.training.step import TrainStep
from tpu import flags
from tpu.compiler import hlo
from tpu.compiler.topology import Topology, memory_figures

Config = TrainConfig | FinetuneConfig  # configurations that have a training step


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled step, per device.

    Attributes:
      arguments: bytes of HBM for parameters, optimizer and batch; the step's results reuse them.
      temporaries: further bytes, including the program itself.
      seconds: seconds of compilation, including tracing.
    """

    train_step: TrainStep
    module: hlo.Module
    arguments: int
    temporaries: int
    seconds: float


class OutOfMemoryError(Exception):
    """The program needs too much memory. needed, limit: bytes per device, by the compiler's figures; space: `hbm`, or
    `vmem` if a single operation needs more than the on-chip memory.
    """

    def __init__(self, needed: int, limit: int, space: str, seconds: float):
        super().__init__(needed, limit, space, seconds)
        self.needed, self.limit, self.space, self.seconds = needed, limit, space, seconds


def train_step_for(c: Config, topology: Topology) -> TrainStep:
    """The training step of `scaling.train`, or of a recipe with its data, on the slice. Nothing is allocated.

    Bands that have not been measured yet are normalised with 0 and 1: these are constants, which change no shape.

    Raises:
      UserError: the config is impossible, its mesh does not fit the slice, or its batch does not divide.
    """
    c.check()
    c = c.resolved() if isinstance(c, TrainConfig) else c
    mesh = make_mesh(c.mesh, topology.devices)
    check_batch(c.batch_size, mesh.devices.shape, c.accumulate)
    if not c.data.mean:
        bands = c.model.bands
        c = dataclasses.replace(c, data=dataclasses.replace(c.data, mean=(0.0,) * bands, std=(1.0,) * bands))
    return TrainStep(step_config(c, "tpu"), mesh)


def compiler_options(topology: Topology) -> dict[str, Any]:
    """The XLA flags that `tpu.launch` sets on such a slice, as options of one compilation; empty for other chips."""
    chip = flags.CHIPS.get(topology.name.partition(":")[0])
    return dict(flag.removeprefix("--").split("=") for flag in chip.init_args.split()) if chip else {}


def compile_step(train_step: TrainStep, topology: Topology) -> Program:
    """Compiles the step: the same function, shardings, donation and rematerialisation as in training.

    Raises:
      OutOfMemoryError: the program needs too much memory.
    """
    batch = train_step.objective.abstract_batch(train_step.config.batch_size)
    began = time.perf_counter()
    try:
        lowered = train_step.step.lower(train_step.abstract, batch)
        with _anew():
            compiled = lowered.compile(compiler_options=compiler_options(topology))
    except jax.errors.JaxRuntimeError as e:
        if "Ran out of memory" not in str(e):
            raise
        raise OutOfMemoryError(*memory_figures(str(e)), time.perf_counter() - began) from e
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None  # this compiler reports both
    assert text is not None
    temporaries = memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    temporaries += memory.output_size_in_bytes - memory.alias_size_in_bytes
    seconds = time.perf_counter() - began
    return Program(train_step, hlo.parse(text), memory.argument_size_in_bytes, temporaries, seconds)


@contextlib.contextmanager
def _anew() -> Iterator[None]:
    """Compiles regardless of the cache: a cached program has no compilation figures."""
    used = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # in case its use was already decided
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", used)
        compilation_cache.reset_cache()


def state_bytes(train_step: TrainStep, accumulate: int = 1) -> int:
    """HBM per device for parameters and optimizer and, with microbatches, the sum of their gradients: a lower bound
    for any batch.
    """
    sums = bytes_per_device(train_step.abstract.params, train_step.shardings.params) if accumulate > 1 else 0
    return bytes_per_device(train_step.abstract, train_step.shardings) + sums


def fsdp_bytes(train_step: TrainStep) -> int:
    """Bytes that fully sharded data parallelism must send per device and step: in every microbatch, kernels split over
    fsdp are gathered, in the dtype of the matrix products, for the forward and for the backward pass, and their
    gradients scattered; for networks cut out of them only the kept part. Kernels stay split over `tensor`. The
    objective's auxiliary trees have only a forward pass.

    Rematerialisation may gather some of them once more.
    """
    item, parts = jnp.dtype(train_step.config.dtype).itemsize, train_step.mesh.shape["fsdp"]
    abstract, shardings, names = train_step.abstract, train_step.shardings, train_step.names

    def received(shapes: Any, shardings: Any, left: Any = None) -> float:
        """Number of elements received; `left`: the shapes of the kept parts."""
        trees = shapes, left or shapes, shardings
        return sum(
            math.prod(s.shard_shape(x.shape)) * (parts - 1) * math.prod(y.shape) / math.prod(x.shape)
            for x, y, s in zip(*map(jax.tree.leaves, trees), strict=True)
            if "fsdp" in s.spec
        )

    tokens, params = train_step.config.objective.tokens(train_step.config.model), abstract.params
    trained = received(params, shardings.params)
    for cut in tokens.narrower:
        trained += cut.times * received(params, shardings.params, cut_shapes(params, names, cut.plan))
    beside = received(train_step.beside(abstract), train_step.beside(shardings))
    return round(item * (3 * train_step.config.accumulate * trained + beside))
