"""The programs, each compiled in a process of its own: libtpu reads its flags once, and `scaling` and `tpu` may come
from another checkout.

    python -m tests.bench.tpu_compiled.cases --case=encoder --folder=DIR --tree=DIR

It writes the optimised HLO to `program.txt` and the compiler's figures to `memory.json`. Nothing of `scaling` or `tpu`
may be imported before the tree is on the path.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

IMAGES, CLASSES = 64, 1000
PLACE = "v5e:1x1"


def encoder(**fields: Any) -> Callable[[Any], jax.stages.Lowered]:
    """A classifier: ViT-L/16 without a class token, mean over the patches, as it is fine-tuned."""

    def lowered(place: Any) -> jax.stages.Lowered:
        from scaling.models.variants import encoder
        from scaling.objectives import objective_config
        from scaling.training.config import FinetuneConfig

        model = encoder("vit_l", class_token=False, remat="dots", **fields)
        task = objective_config("classification", classes=CLASSES, pool="mean")
        return _lowered(FinetuneConfig(batch_size=IMAGES, model=model, task=task), place)

    return lowered


def mae(place: Any) -> jax.stages.Lowered:
    """MAE pretraining, `configs/vit_l.py`, with fewer images."""
    from scaling.training.recipes import mae_recipe

    return _lowered(dataclasses.replace(mae_recipe("vit_l", remat="dots"), batch_size=IMAGES), place)


def _lowered(c: Any, place: Any) -> jax.stages.Lowered:
    from tpu.compiler.step import train_step_for

    train_step = train_step_for(c, place)
    lowered: jax.stages.Lowered = train_step.step.lower(
        train_step.abstract, train_step.objective.abstract_batch(c.batch_size)
    )
    return lowered


def yardstick(**arithmetic: bool) -> Callable[[Any], jax.stages.Lowered]:
    """The encoder's work as the field writes it."""

    def lowered(place: Any) -> jax.stages.Lowered:
        from tests.bench.tpu_compiled import yardstick

        c = yardstick.Yardstick(classes=CLASSES, **arithmetic)
        return yardstick.lowered(c, IMAGES, place.devices[0])

    return lowered


# The yardsticks that the encoder is compared with have its arithmetic: exact GELU, float32 softmax. `yardstick` has the
# GELU of flax, `yardstick_erf` that of the encoder. The others show what each of the two costs; with neither it is what
# big_vision publishes.
CASES = {
    "encoder": encoder(),
    "encoder_half_logits": encoder(half_logits=True),
    "encoder_fused": encoder(attention="fused"),
    "mae": mae,
    "yardstick": yardstick(exact_gelu=True, float32_softmax=True),
    "yardstick_erf": yardstick(exact_gelu=True, float32_softmax=True, erf=True),
    "yardstick_tanh": yardstick(exact_gelu=False, float32_softmax=True),
    "yardstick_bf16_softmax": yardstick(exact_gelu=True, float32_softmax=False),
    "yardstick_tanh_bf16_softmax": yardstick(exact_gelu=False, float32_softmax=False),
}
TOKENS = {"mae": (50, 197)}  # along which attention goes; (196,) elsewhere
FIGURES = ("argument", "output", "alias", "temp", "generated_code")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--tree", required=True)
    args = parser.parse_args()
    sys.path.insert(0, args.tree)
    from tpu.compiler.step import compiler_options
    from tpu.compiler.topology import parse

    place = parse(PLACE)
    began = time.perf_counter()
    compiled = CASES[args.case](place).compile(compiler_options=compiler_options(place))
    seconds = time.perf_counter() - began
    memory = compiled.memory_analysis()
    figures = {name: getattr(memory, f"{name}_size_in_bytes") for name in FIGURES}
    (args.folder / "program.txt").write_text(compiled.as_text())
    (args.folder / "memory.json").write_text(json.dumps(figures | {"seconds": seconds}))


if __name__ == "__main__":
    main()
