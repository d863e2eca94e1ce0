"""The contract between a training step and the objective that it minimises.

The step knows optimizers and meshes and receives an objective; an objective knows parameters and a loss, and nothing of
optimizers, meshes or files.
"""

import dataclasses
import importlib
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, Protocol, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from scaling.compute.counting import Tokens
from scaling.core.errors import UserError
from scaling.models.config import ViTConfig

Batch = dict[str, jax.Array]
EVALUATION = 2**31 - 1  # the "step" whose random numbers evaluation uses; no training step reaches it


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Properties of the images and of the arithmetic, given to an objective.

    Attributes:
      mean, std: mean and deviation of each band in the units of the data; images are normalised on the device.
      dtype: type of activations and matrix products.
      steps: number of steps of the run, for schedules.
      rgb: bands that pictures show as red, green and blue; () for the first three.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: Any = jnp.float32
    steps: int = 1
    rgb: tuple[int, ...] = ()


class ObjectiveConfig(Protocol):
    """The configuration of an objective: a frozen dataclass, whose methods all refer to an encoder `model`.

    Attributes:
      name: kind of the objective.
    """

    @property
    def name(self) -> str: ...

    def check(self, model: ViTConfig) -> None:
        """Raises UserError for errors that can be found before anything is loaded."""

    def abstract(self, model: ViTConfig) -> tuple[Any, Any]:
        """Shapes and axis names of all parameters, including those of the encoder as the network `encoder`."""

    def tokens(self, model: ViTConfig, whole: bool = False) -> Tokens:
        """Tokens of one image that pass each parameter, in training or if the `whole` image is encoded."""

    def scaled(self, model: ViTConfig, base: Self, base_model: ViTConfig, deep: bool) -> Self:
        """The same configuration, with the forward-pass factors of its own networks derived from a base of other sizes.

        `deep`: whether residual sums shrink with the depth; see `scaling.training.parametrization`.
        """

    def make(self, model: ViTConfig, inputs: Inputs) -> "Objective":
        """The objective that the training step minimises."""


class Objective(Protocol):
    """Parameters and a loss.

    Attributes:
      names: names of the axes of the parameters; see `scaling.models.parameters.abstract_params`.
      extra_names: names of the axes of the auxiliary trees, by name; these are kept beside the parameters without
        gradients.
      divisible: whether the loss of a batch is the mean of those of its parts, and nothing in `extra` depends on the
        batch: only then can a step be divided into microbatches.
      below_head: number of layers between each parameter and the head, for `optimizer.layer_decay`, infinite for frozen
        parameters; None without a head.
      picture: (params, batch) -> arrays of a few held-out images; None if there is nothing to show.
      draw: (path, arrays) draws the result of `picture`, on the host; None if `picture` is.
      coordinates: (params, batch) -> mean absolute value of each part's output, one number per layer [L] for parts of a
        stack; None if the coordinate check is not supported.
    """

    names: Any
    extra_names: Mapping[str, Any]
    divisible: bool
    below_head: Any

    @property
    def picture(self) -> Callable[[Any, Batch], Batch] | None: ...

    @property
    def draw(self) -> Callable[[epath.Path, Mapping[str, np.ndarray]], None] | None: ...

    @property
    def coordinates(self) -> Callable[[Any, Batch], Batch] | None: ...

    def abstract_batch(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Arrays of a batch of `size` images that the objective takes, as the pipeline delivers them."""

    def init(self, seed: Any) -> Any:
        """The parameters before the first step, as the standard parametrization draws them."""

    def init_extra(self, params: Any) -> dict[str, Any]:
        """The auxiliary trees before the first step."""

    def inputs(self, seed: Any, step: jax.Array, batch: Batch) -> Batch:
        """A global batch with all random draws of the step; every array has the axis `batch` first."""

    def loss(self, params: Any, extra: dict[str, Any], inputs: Batch) -> tuple[jax.Array, tuple[dict[str, Any], Batch]]:
        """The loss of a global batch, float32 []; the auxiliary trees after it; and further metrics, each []."""

    def evaluate(self, params: Any, extra: dict[str, Any], batch: Batch) -> Batch:
        """Sums over the held-out images of a batch, each image counted with its `weight`, and the sum of the
        weights.
        """


Kind = TypeVar("Kind", bound=type[Any])


class Kinds(MutableMapping[str, type[Any]]):
    """Classes of configurations by their field `name`.

    Args:
      shipped: the module that defines each kind of this project; imported when the kind is first asked for.
    """

    def __init__(self, **shipped: str):
        self._shipped, self._known = shipped, dict[str, type[Any]]()

    def __getitem__(self, name: str) -> type[Any]:
        if name not in self._known and name in self._shipped:
            importlib.import_module(self._shipped[name])
        return self._known[name]

    def __setitem__(self, name: str, config: type[Any]) -> None:
        self._known[name] = config

    def __delitem__(self, name: str) -> None:
        del self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._shipped, **self._known})

    def __len__(self) -> int:
        return len({**self._shipped, **self._known})


OBJECTIVES = Kinds(  # for pretraining, without labels
    mae="scaling.objectives.mae", moco="scaling.objectives.moco", slimmable="scaling.objectives.slimmable"
)
TASKS = Kinds(  # for fine-tuning; their classes follow from the data
    classification="scaling.tasks.classification",
    detection="scaling.tasks.detection",
    segmentation="scaling.tasks.segmentation",
    slimmable_classification="scaling.tasks.slimmable",
)


def objective(config: Kind) -> Kind:
    """Class decorator: makes an objective known by the default of its configuration's field `name`."""
    OBJECTIVES[config.name] = config
    return config


def task(config: Kind) -> Kind:
    """Class decorator: makes a task known, like `objective`."""
    TASKS[config.name] = config
    return config


def title(c: ObjectiveConfig) -> str:
    """Name of an objective in rows of measurements: its own, before that of the objective it wraps."""
    wrapped = getattr(c, "wraps", None)
    return f"{c.name} {title(wrapped)}" if wrapped else c.name


def objective_config(name: str, **fields: Any) -> Any:
    """The configuration of a kind of objective or task; fields that are not given have their defaults.

    Raises:
      UserError: unknown kind.
    """
    kinds = ChainMap(OBJECTIVES, TASKS)
    if name not in kinds:
        raise UserError(f"name={name!r}: must be one of {', '.join(sorted(kinds))}")
    return kinds[name](**fields)
