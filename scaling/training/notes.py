"""Notes on settings without effect in a run of this length: they are legal, but usually a mistake."""

import math

from scaling.data.config import held_out
from scaling.training.config import RunConfig
from scaling.training.optimizer import OptimizerConfig

_BEGINNING = 0.01  # share of the initial parameters in a moving average, above which it is not yet meaningful


def notes(c: RunConfig, images: int = 0) -> list[str]:
    """One line per setting without effect; empty if there are none. `images` is the number of images of the training
    split, with those held out; 0 if it is not known.
    """
    return [*_schedule(c), *_never(c), *_kept(c), *_average(c), *_repeated(c, images)]


def _repeated(c: RunConfig, images: int) -> list[str]:
    learned = images - held_out(images, c.data) if images > 1 else images
    if not 0 < learned < c.batch_size:
        return []
    return [
        f"batch_size={c.batch_size}: more than the {learned:,} images to train on, so that every batch repeats images; "
        "set a smaller batch_size, or give more images"
    ]


def _schedule(c: RunConfig) -> list[str]:
    o, said = c.optimizer, []
    if o.warmup >= c.steps:
        said.append(
            f"optimizer.warmup={o.warmup} is not shorter than steps={c.steps}: the learning rate only rises, to its "
            "peak after the last step, and never falls; set a shorter warm-up, a tenth of the steps for example"
        )
    if o.schedule != "cooldown" and o.cooldown != OptimizerConfig.cooldown:
        said.append(f"optimizer.cooldown={o.cooldown} does nothing: it is of optimizer.schedule=cooldown")
    if o.name == "adafactor" and o.first_moment_dtype != OptimizerConfig.first_moment_dtype:
        said.append(f"optimizer.first_moment_dtype={o.first_moment_dtype} does nothing: adafactor's is bfloat16")
    return said


def _never(c: RunConfig) -> list[str]:
    """Notes on actions that only happen at the last step."""
    happens = {"log_every": "logged", "eval_every": "evaluated", "checkpoint_every": "saved"}
    rare = [field for field in happens if getattr(c, field) > c.steps]
    if not rare:
        return []
    fields = ", ".join(f"{field}={getattr(c, field)}" for field in rare)
    *first, last = (happens[field] for field in rare)
    what = " and ".join([*([", ".join(first)] if first else []), last])
    return [f"{fields}: more than steps={c.steps}, so that only the last step is {what}"]


def _kept(c: RunConfig) -> list[str]:
    every = c.checkpoint.keep_every
    if not every:
        return []
    common = math.lcm(every, c.checkpoint_every)
    if common > c.steps:
        return [
            f"checkpoint.keep_every={every} keeps none for good: of steps={c.steps} none is a multiple of it at which "
            f"checkpoint_every={c.checkpoint_every} saves one"
        ]
    if common > every:
        return [
            f"checkpoint.keep_every={every} is not a multiple of checkpoint_every={c.checkpoint_every}: those of every "
            f"{common} steps are kept for good"
        ]
    return []


def _average(c: RunConfig) -> list[str]:
    if not c.ema_decay or (first := c.ema_decay**c.steps) <= _BEGINNING:
        return []
    return [
        f"ema_decay={c.ema_decay} looks back over {1 / (1 - c.ema_decay):,.0f} steps: after steps={c.steps} it still "
        f"is {first:.0%} what the run began with"
    ]
