"""One GPU: MAE training steps beside torch, and the cost of slimmed encoders.

    python -m tests.bench.gpu [--json=FILE] [--budget=420] [--repeats=5] [--only=l,h,slim] [--batch=N]
                              [--field=NAME=VALUE ...] [--xla=NAME] [--tiny]

Needs jax, flax, optax and numpy, and torch for the comparison, which is otherwise left out. No data, no network.

* MAE ViT-L/16 and ViT-H/14 at 224 pixels, mask 0.75, decoder 512 x 8, bfloat16 with float32 parameters and AdamW, with
  256 and 128 images a step: `tests.bench.gpu_train`, beside torch's `tests.bench.gpu_torch`.
* ViT-B/16 in bfloat16, cut in width and depth, with 1 and with 64 images a call: `tests.bench.gpu_slim`.

Rows are JSON lines. Measurements beyond the time budget (seconds) are skipped, with a line each. `--field` sets a field
of the models (`--field=remat=dots`), `--xla` a bundle of `scaling.compute.gpu_flags`. `--tiny`: everything at tiny
sizes on the CPU, which shows that it runs but not how fast.
"""

import argparse
import ast
import importlib.metadata
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from scaling.compute.gpu_flags import BUNDLES
from tests.bench import gpu_slim, gpu_train

# name: encoder, images of a step, seconds that it may take with all that is compiled for it
TRAINED = {"l": ("vit_l", 256, 110), "h": ("vit_h", 128, 180)}


def text(row: dict[str, Any]) -> str:
    """A row of the printed table."""
    if row["bench"] == "train":
        mfu = f"{row['mfu']:6.1%}" if row["mfu"] else "     -"
        memory = f"{row['memory_gib']:7.2f}" if row["memory_gib"] else "      -"
        return (
            f"{row['model']:<12} {row['side']:<8} batch {row['batch']:>4}  {row['step_seconds'] * 1e3:9.2f} ms  "
            f"{row['images_per_second']:9.1f} images/s  MFU {mfu}  {memory} GiB  "
            f"compiled in {row['compile_seconds']:.0f} s"
        )
    return (
        f"{row['model']:<12} s = {row['width_ratio']:<4g} depth {row['depth']:>2}  batch {row['batch']:>3}  "
        f"{row['seconds'] * 1e3:8.3f} ms  {row['images_per_second']:9.1f} images/s  "
        f"time {row['relative_time']:.3f}  compute {row['relative_compute']:.3f}"
    )


def versions() -> dict[str, str]:
    """Device and library versions of the measurement."""
    found = {"device": jax.devices()[0].device_kind}
    for name in ("jax", "jaxlib", "flax", "optax", "torch"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file that the rows are appended to")
    parser.add_argument("--budget", type=float, default=420, help="seconds after which nothing more is begun")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="l,h,slim", help="what is measured, of l, h, slim")
    parser.add_argument("--batch", type=int, default=0, help="images of a training step, in the place of 256 and 128")
    parser.add_argument("--field", action="append", default=[], help="NAME=VALUE of the models' configuration")
    parser.add_argument("--xla", choices=BUNDLES, default="none")
    parser.add_argument("--tiny", action="store_true")
    a = parser.parse_args(argv)
    a.fields = {name: _value(value) for name, _, value in (field.partition("=") for field in a.field)}
    if unknown := set(a.only.split(",")) - {*TRAINED, "slim"}:
        parser.error(f"--only={a.only}: {', '.join(sorted(unknown))} is none of l, h, slim")
    return a


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def environment(a: argparse.Namespace) -> None:
    """Set before JAX asks for its first device."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch wants memory too
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *BUNDLES[a.xla]]).strip()
    if a.tiny:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads and JAX's would wait for each other
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_disable_most_optimizations", True)


def measured(a: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All rows, as they come."""
    began, only = time.perf_counter(), a.only.split(",")

    def left() -> float:
        return a.budget - (time.perf_counter() - began)

    for name, (encoder_name, batch, needed) in TRAINED.items():
        if name in only and left() < (0 if a.tiny else needed):
            print(f"{name}: left out, {left():.0f} s are left of the budget and it may take {needed}")
        elif name in only:
            c = gpu_train.config(encoder_name, a.tiny, a.fields)
            yield from gpu_train.rows(f"mae_{encoder_name}{c.patch_size}", c, a.batch or batch, a.repeats, a.tiny)
    if "slim" in only:
        yield from gpu_slim.rows(a.fields, a.repeats, a.tiny, left)


def main(argv: list[str] | None = None) -> None:
    a = parse(argv)
    environment(a)
    about = {**versions(), "tiny": a.tiny, "xla_flags": os.environ["XLA_FLAGS"], "fields": a.fields}
    print(", ".join(f"{name} {value}" for name, value in about.items() if value))
    if a.tiny:
        print("tiny sizes on the CPU: it runs; this says nothing about speed")
    elif jax.devices()[0].platform != "gpu":
        raise SystemExit("JAX sees no GPU: install jax[cuda13], or try --tiny on the CPU")
    began, rates = time.perf_counter(), dict[str, dict[str, float]]()
    for row in measured(a):
        print(text(row), flush=True)
        if a.json:
            with a.json.open("a") as file:
                print(json.dumps(row | about), file=file)
        if row["bench"] == "train":
            rates.setdefault(row["model"], {})[row["side"]] = row["images_per_second"]
    for model, rate in rates.items():
        if "torch" in rate and not a.tiny:
            print(f"{model}: images/s, scaling / torch: {rate['scaling'] / rate['torch']:.2f}")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
