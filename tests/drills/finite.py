"""Numbers that are not finite, put into trees of arrays and looked for in what a command wrote."""

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np


def written_wrong(folder: Path) -> str:
    """What a command wrote that is not finite, in rows, tables and checkpoints; empty if nothing is."""

    def refuse(constant: str) -> None:
        raise ValueError(f"has {constant}")

    for file in [*folder.rglob("*.jsonl"), *folder.rglob("*.json")]:
        try:
            for line in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
                json.loads(line, parse_constant=refuse)
        except ValueError as error:
            return f"{file.name} {error}"
    for file in folder.rglob("*.npy"):
        if not np.isfinite(np.load(file)).all():
            return f"{file.name} is not finite"
    for checkpoint in [path for path in folder.rglob("checkpoints/*") if path.name.isdigit()]:
        if wrong := not_finite(checkpoint):
            return f"checkpoint {checkpoint.name} has {wrong}"
    return ""


def not_finite(checkpoint: Path) -> str:
    """The first array of a checkpoint that is not finite, read by Orbax alone; empty if all are."""
    import jax
    import orbax.checkpoint as ocp

    for item in ("params", "optimizer"):
        with ocp.PyTreeCheckpointer() as reader:
            tree = reader.restore(checkpoint / item)
        for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
            if np.issubdtype(np.asarray(x).dtype, np.floating) and not np.isfinite(np.asarray(x)).all():
                return f"{item}{jax.tree_util.keystr(path)}"
    return ""


def altered(tree: Any, rng: random.Random, values: dict[str, float]) -> tuple[Any, str]:
    """A tree of arrays with a number in one of them, at one place or in all; and what was done."""
    import jax

    leaves, structure = jax.tree.flatten(tree)
    some = [i for i, x in enumerate(leaves) if np.issubdtype(np.asarray(x).dtype, np.floating) and np.size(x)]
    at, name = rng.choice(some), rng.choice(sorted(values))
    x = np.array(leaves[at])
    where = ... if rng.random() < 0.2 else np.unravel_index(rng.randrange(x.size), x.shape)
    x[where] = values[name]
    leaves[at] = x
    path = jax.tree_util.keystr(jax.tree_util.tree_flatten_with_path(tree)[0][at][0], simple=True, separator="/")
    return jax.tree.unflatten(structure, leaves), f"{name} in {'all' if where is ... else 'one'} of {path}"


def save(folder: Path, step: int, state: Any, config: Any) -> None:
    """A checkpoint of these numbers as they are, with its checksums."""
    from scaling.training.checkpoints import CheckpointConfig, Checkpoints
    from scaling.training.reading import quiet_orbax

    with quiet_orbax(), contextlib.closing(Checkpoints(folder, CheckpointConfig(10, asynchronous=False))) as there:
        there.save(step, state, dict(config))
