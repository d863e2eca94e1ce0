"""Optimizers and learning-rate schedules."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from scaling import axes
from scaling.core.errors import UserError
from scaling.training.adafactor import scale_by_factored_rms
from scaling.training.parametrization import Multipliers


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How parameters are updated.

    Attributes:
      name: `adamw`, or `adafactor`: second moments factored into rows and columns, layer by layer, and the first moment
        in bfloat16. The state then takes the memory of half a copy of the parameters instead of two (Zhai et al.,
        2106.04560, use it for ViT-G).
      base_lr: learning rate for 256 images per step; the peak is base_lr * batch_size / 256.
      schedule: after the warm-up, `cosine` to zero, or `cooldown`: constant, then linear to zero over the last fraction
        `cooldown` of these steps, so that one long run can be branched off at several lengths.
      warmup: steps of linear warm-up from zero; limited to the length of the run.
      cooldown: see schedule.
      beta1, beta2: decay of the moments; adafactor does not use beta2 (see `scaling.training.adafactor.decay`).
      weight_decay: decoupled weight decay, on kernels only.
      clip_norm: bound on the global gradient norm; 0 for none.
      first_moment_dtype: dtype of adamw's first moment, float32 or bfloat16.
      layer_decay: in fine-tuning, learning rate of a layer relative to that of the layer above it (Bao et al.,
        2106.08254); 1 for equal rates.
    """

    name: str = "adamw"
    base_lr: float = 1.5e-4
    schedule: str = "cosine"
    warmup: int = 0
    cooldown: float = 0.2
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.05
    clip_norm: float = 0.0
    first_moment_dtype: str = "float32"
    layer_decay: float = 1.0

    def check(self) -> None:
        """Raises UserError for a value that is not supported."""
        offered: dict[str, Collection[str]] = {
            "name": OPTIMIZERS,
            "schedule": SCHEDULES,
            "first_moment_dtype": ("float32", "bfloat16"),
        }
        for field, values in offered.items():
            if getattr(self, field) not in values:
                raise UserError(f"optimizer.{field}={getattr(self, field)!r}: must be one of {', '.join(values)}")
        if not 0 < self.base_lr < np.inf:
            raise UserError(f"optimizer.base_lr={self.base_lr}: must be above 0 and finite")
        for field in ("warmup", "weight_decay", "clip_norm"):
            if not getattr(self, field) >= 0:
                raise UserError(f"optimizer.{field}={getattr(self, field)}: must be at least 0")
        if not 0 <= self.cooldown <= 1:
            raise UserError(
                f"optimizer.cooldown={self.cooldown}: must be a fraction of the steps, at least 0 and at most 1"
            )
        for field in ("beta1", "beta2"):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"optimizer.{field}={getattr(self, field)}: must be at least 0 and below 1")
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"optimizer.layer_decay={self.layer_decay}: must be in (0, 1]")
        if self.name == "adafactor" and self.beta2 != type(self).beta2:
            raise UserError(
                f"optimizer.beta2={self.beta2}: adafactor's second moments decay by min(0.999, 1 - t^-0.8) at step t; "
                f"leave it at {type(self).beta2}"
            )


def _cosine(c: OptimizerConfig, peak: Any, steps: int) -> optax.Schedule:
    return optax.cosine_decay_schedule(peak, max(steps, 1))


def _cooldown(c: OptimizerConfig, peak: Any, steps: int) -> optax.Schedule:
    length = max(round(c.cooldown * steps), 1)
    return optax.join_schedules(
        [optax.constant_schedule(peak), optax.linear_schedule(peak, 0.0, length)], [steps - length]
    )


def _adamw(c: OptimizerConfig, names: Any) -> optax.GradientTransformation:
    del names
    return optax.scale_by_adam(c.beta1, c.beta2, mu_dtype=jnp.dtype(c.first_moment_dtype))


def _adafactor(c: OptimizerConfig, names: Any) -> optax.GradientTransformation:
    return optax.chain(
        scale_by_factored_rms(names),
        optax.ema(c.beta1, debias=False, accumulator_dtype=jnp.bfloat16),
    )


SCHEDULES: dict[str, Callable[[OptimizerConfig, Any, int], optax.Schedule]] = {
    "cosine": _cosine,
    "cooldown": _cooldown,
}
OPTIMIZERS: dict[str, Callable[[OptimizerConfig, Any], optax.GradientTransformation]] = {
    "adamw": _adamw,
    "adafactor": _adafactor,
}


def peak_lr(c: OptimizerConfig, batch_size: int) -> float:
    """The linear scaling rule: base_lr * batch_size / 256."""
    return c.base_lr * batch_size / 256


def lr_schedule(c: OptimizerConfig, peak: Any, steps: int) -> optax.Schedule:
    """Step -> learning rate: linear warm-up to the peak, then the named schedule over the steps that are left."""
    warmup = min(c.warmup, steps)
    main = SCHEDULES[c.schedule](c, peak, steps - warmup)
    if not warmup:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), main], [warmup])


def _scale(factors: Any) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, _: jax.tree.map(lambda x, f: x * jnp.asarray(f, x.dtype), updates, factors))


def make_optimizer(
    c: OptimizerConfig, lr: optax.Schedule, names: Any, below_head: Any = None, multipliers: Multipliers | None = None
) -> optax.GradientTransformation:
    """The complete parameter update.

    Args:
      c: configuration of the optimizer.
      lr: step -> learning rate.
      names: tree of axis names, which decides the parameters that decay.
      below_head: parallel tree of arrays: number of layers between a parameter, or each slice along its first axis, and
        the head; infinite for frozen parameters.
      multipliers: factors of the parametrization, if it has any.
    """
    parts = [optax.clip_by_global_norm(c.clip_norm)] if c.clip_norm else []
    parts.append(OPTIMIZERS[c.name](c, names))
    if multipliers:
        parts[-1:] = [_scale(multipliers.gradient), parts[-1], _scale(multipliers.learning_rate)]
    parts += [optax.add_decayed_weights(c.weight_decay, mask=axes.decay_mask(names)), optax.scale_by_learning_rate(lr)]
    if c.layer_decay != 1 or any(np.isinf(n).any() for n in jax.tree.leaves(below_head)):
        parts.append(_scale(jax.tree.map(lambda n: np.where(np.isinf(n), 0.0, c.layer_decay**n), below_head)))
    return optax.chain(*parts)
