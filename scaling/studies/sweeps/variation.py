"""Variants of a configuration: the fields that a sweep can change, and the fields that change with them."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from scaling.core.config import nearest
from scaling.core.errors import UserError
from scaling.training.config import TrainConfig
from scaling.training.parametrization import ParametrizationConfig

NamedConfig = tuple[str, TrainConfig]


def _model(c: TrainConfig, **fields: Any) -> TrainConfig:
    return dataclasses.replace(c, model=dataclasses.replace(c.model, **fields))


def _width(c: TrainConfig, width: int) -> TrainConfig:
    """More heads of the same size, and a proportional hidden layer."""
    m = c.model
    if width % m.head_dim:
        raise UserError(f"width {width} is not a whole number of heads of model.head_dim={m.head_dim}")
    return _model(c, width=width, heads=width // m.head_dim, mlp=m.mlp * width // m.width)


def _steps(c: TrainConfig, steps: int) -> TrainConfig:
    """Scales warm-up, intervals of evaluation and the like in proportion."""
    share = steps / c.steps
    every = {f: max(round(getattr(c, f) * share), 1) for f in ("checkpoint_every", "log_every", "eval_every")}
    optimizer = dataclasses.replace(c.optimizer, warmup=round(c.optimizer.warmup * share))
    return dataclasses.replace(c, steps=steps, optimizer=optimizer, **every)


def _parametrization(c: TrainConfig, name: str) -> TrainConfig:
    """Sets the parametrization, whose base is the model before it is varied."""
    m = c.model
    base = ParametrizationConfig(name, m.width, m.depth, m.heads, m.head_dim, m.mlp)
    return dataclasses.replace(c, parametrization=ParametrizationConfig() if name == "standard" else base)


def _images(c: TrainConfig, images: int) -> TrainConfig:
    """This number of training images, the same for every seed; needs an evaluation split of its own."""
    if c.data.holds_out:
        raise UserError("vary.images: held-out images must not change with it; set base.data.eval_split")
    return dataclasses.replace(c, data=dataclasses.replace(c.data, split=f"{c.data.split}[:{images}]"))


def _bands(c: TrainConfig, bands: tuple[int, ...]) -> TrainConfig:
    c = dataclasses.replace(c, data=dataclasses.replace(c.data, bands=tuple(bands)))
    return _model(c, bands=len(bands))


def _mask_ratio(c: TrainConfig, share: float) -> TrainConfig:
    if not hasattr(c.objective, "mask_ratio"):
        raise UserError(f"vary.mask_ratio: the objective {c.objective.name} masks nothing")
    return dataclasses.replace(c, objective=dataclasses.replace(c.objective, mask_ratio=share))  # type: ignore[type-var]


def _lr(c: TrainConfig, lr: float) -> TrainConfig:
    return dataclasses.replace(c, optimizer=dataclasses.replace(c.optimizer, base_lr=lr))


# The parametrization comes first: its base must be the unchanged model.
FIELDS: dict[str, Callable[[TrainConfig, Any], TrainConfig]] = {
    "parametrization": _parametrization,
    "width": _width,
    "depth": lambda c, depth: _model(c, depth=depth),
    "mlp": lambda c, mlp: _model(c, mlp=mlp),
    "mask_ratio": _mask_ratio,
    "bands": _bands,
    "images": _images,
    "steps": _steps,
    "lr": _lr,
    "seed": lambda c, seed: dataclasses.replace(c, seed=seed),
}
_WHOLE = {"width", "depth", "mlp", "images", "steps", "seed"}
_NUMBERS = {"lr", "mask_ratio"}


def vary(base: TrainConfig, fields: Mapping[str, Any]) -> NamedConfig:
    """A named variant of a configuration.

    Args:
      base: the configuration to be varied.
      fields: some of `FIELDS`.

    Returns:
      A name made of the fields in the given order (for a text just its value), and the configuration.

    Raises:
      UserError: an unknown field, or an invalid value.
    """
    for name in fields:
        if name not in FIELDS:
            raise UserError(f"vary: cannot vary {name}{nearest(name, list(FIELDS))}")
        kinds, what = ((int,), "a whole number") if name in _WHOLE else ((int, float), "a number")
        if name in (*_WHOLE, *_NUMBERS) and type(fields[name]) not in kinds:
            raise UserError(f"vary.{name}: {fields[name]!r} is not {what}")
    c = base
    for name, apply in FIELDS.items():
        if name in fields:
            c = apply(c, fields[name])
    words = [value if isinstance(value, str) else name + _word(value) for name, value in fields.items()]
    return "_".join(words), c


def product(base: TrainConfig, values: Mapping[str, tuple[Any, ...]]) -> Iterator[NamedConfig]:
    """Every combination of the values of some fields."""
    for combination in itertools.product(*values.values()):
        yield vary(base, dict(zip(values, combination, strict=True)))


def _word(value: Any) -> str:
    """A value as part of the name of a folder."""
    if isinstance(value, tuple):
        return "-".join(map(_word, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
