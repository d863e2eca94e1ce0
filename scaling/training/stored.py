"""The checkpoints of a working directory, read: whole states, parts of parameters, the configuration.

A checkpoint is `WORKDIR/checkpoints/STEP/`; `scaling.training.checkpoints` writes it. Restoring uses our own model
definition, and the checkpoint's metadata only to report what differs; the target mesh, number of hosts and dtypes are
free.
"""

import functools
import itertools
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from scaling.core.errors import UserError
from scaling.core.files import in_bucket
from scaling.core.memory import give_back_freed_memory
from scaling.core.paths import check_no_pattern
from scaling.parallel import hosts
from scaling.slimming.cutting import cut_shapes
from scaling.training.checksums import damaged_file
from scaling.training.finite import first_not_finite
from scaling.training.state import AVERAGE, State, describe_mismatch
from scaling.training.unleaked import keep_orbax_from_leaking

log = logging.getLogger(__name__)

keep_orbax_from_leaking()

_PARTS = ("params/manifest.ocdbt", "params/_METADATA", "optimizer/_METADATA", "config/metadata")
_METADATA = ("_METADATA", "manifest.ocdbt")  # of a folder of arrays
_DAMAGE = re.compile(r"(OUT_OF_RANGE|DATA_LOSS|NOT_FOUND|FAILED_PRECONDITION|INVALID_ARGUMENT): [^\n]*")


class DamagedCheckpointError(UserError):
    """A checkpoint that cannot be read."""


class StoredCheckpoints:
    """The checkpoints of one working directory, in which nothing is changed: unfinished ones of another process stay.

    Args:
      workdir: working directory.

    Attributes:
      directory: folder of the checkpoints.
      damaged: steps whose checkpoints have proved unreadable.
    """

    _where = "checkpoint"  # flag with the working directory, for messages

    def __init__(self, workdir: epath.PathLike):
        self.damaged: set[int] = set()
        self._verified: set[tuple[int, str]] = set()
        path = epath.Path(workdir)  # `absolute` would take gs:// for the name of a local folder
        self.directory = (path if path.is_absolute() else path.absolute()) / "checkpoints"
        check_no_pattern(self._where, self.directory.parent)
        self._parameters = ocp.PyTreeCheckpointHandler()  # can read a part of it
        handlers = {
            "params": self._parameters,
            "optimizer": ocp.StandardCheckpointHandler(),
            "config": ocp.JsonCheckpointHandler(),
        }
        self._manager = ocp.CheckpointManager(self.directory, options=self._options(), item_handlers=handlers)

    def _options(self) -> ocp.CheckpointManagerOptions:
        return ocp.CheckpointManagerOptions(read_only=True)

    def close(self) -> None:
        """Ends the threads of the reader, and returns the memory that they no longer use."""
        self._manager.close()
        give_back_freed_memory()

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def newest(self) -> int | None:
        """The step of the newest readable checkpoint; unreadable ones are named in a warning.

        Only the parts of a checkpoint are checked for presence; damaged arrays are found when they are read.

        Raises:
          UserError: there are checkpoints, and none of them is readable.
        """
        for step in reversed([step for step in self.steps() if step not in self.damaged]):
            try:
                if not (missing := self.missing(step)):
                    self.config(step)
                    return step
                log.warning("checkpoint %s is skipped: its %s is missing", self.directory / str(step), missing)
            except DamagedCheckpointError as e:
                log.warning("%s; it is skipped", e)
            self.damaged.add(step)
        if there := self.steps():
            raise UserError(
                f"{self.directory}: none of the checkpoints {', '.join(map(str, there))} can be read; copy them again, "
                "or remove them to start over"
            )
        return None

    def missing(self, step: int) -> str:
        """The first missing part of a checkpoint; empty if it is complete."""
        folder = self.directory / str(step)
        return next((part for part in _PARTS if not (folder / part).exists()), "")

    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def restore(self, step: int, abstract: State, shardings: State, names: Any) -> State:
        """Reads a whole state straight into the given shardings.

        Args:
          step: step of the checkpoint.
          abstract: shapes and dtypes of our own model.
          shardings: sharding of each array.
          names: axis names of the parameters.

        Raises:
          UserError: it belongs to another architecture or optimizer; the message names the first axis that differs. Or
            some of its numbers are not finite.
        """
        self._check_architecture(step, abstract.params, names, self.stored(step))
        params = self.restore_params(step, abstract.params, shardings.params, names)
        target = _target(optimizer_part(abstract), optimizer_part(shardings))
        try:
            rest = self._read(step, optimizer=ocp.args.StandardRestore(target))
        except (ValueError, KeyError) as e:
            raise UserError(
                f"the checkpoint {self.directory / str(step)} was written with another optimizer or moving average; "
                "set optimizer.* and ema_decay as in the config.json beside it, or choose another --workdir"
            ) from e
        self._check_finite(step, rest["optimizer"])
        return _state(params, rest["optimizer"])

    def restore_params(
        self, step: int, abstract: Any, shardings: Any, names: Any, plan: Mapping[str, int] | None = None
    ) -> Any:
        """Reads parameters alone: those of the networks in `abstract`, optionally cut.

        For a cut parameter only the blocks on disk with its leading part are read, one group of parameters at a time:
        memory beyond the result is at most a copy of the largest group. Of such a reading only the metadata are
        verified (`scaling.training.checksums`), not the blocks: that would read all of them.

        Args:
          step: step of the checkpoint.
          abstract: networks by name, as in the stored parameters (`{"encoder": …}`): shapes and dtypes before the cut.
          shardings: sharding of each array, after the cut.
          names: axis names.
          plan: axis -> k, the number of leading units kept; see `scaling.slimming.cutting`.

        Raises:
          UserError: see `restore`; or a plan that does not fit.
        """
        stored = self.stored(step)
        self._check_architecture(step, abstract, names, {k: stored[k] for k in abstract if k in stored})
        shapes = cut_shapes(abstract, names, plan or {})
        self._verify(step, *_parts("params", whole=_same_shapes(shapes, abstract)))
        wanted = flatten_dict(_target(shapes, shardings))
        restored: dict[tuple[str, ...], jax.Array] = {}
        for _, group in itertools.groupby(wanted.items(), lambda item: item[0][:-1] if plan else None):
            target = unflatten_dict(dict(group))
            blocks = jax.tree.map(_leading_block, target)
            args = ocp.args.PyTreeRestore(target, restore_args=blocks, partial_restore=True)
            params = self._guarded(step, functools.partial(self._restored, step, params=args))["params"]
            restored |= flatten_dict(jax.block_until_ready(params))
        found = unflatten_dict(restored)
        self._check_finite(step, found)
        return found

    def restore_extra(self, step: int, abstract: Mapping[str, Any], shardings: Mapping[str, Any]) -> dict[str, Any]:
        """Reads auxiliary trees alone, by name, and nothing of the optimizer; for arguments and errors see
        `restore_params`. As with a cut, only the metadata are verified.
        """
        if not abstract:
            return {}
        target = _target(dict(abstract), dict(shardings))
        placed = jax.tree.map(_leading_block, target)
        args = ocp.args.PyTreeRestore(target, restore_args=placed, partial_restore=True)
        folder = self.directory / str(step) / "optimizer"
        self._verify(step, *_parts("optimizer", whole=False))
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            found: dict[str, Any] = self._guarded(step, lambda: reader.restore(folder, args=args))
        self._check_finite(step, found)
        return found

    def stored(self, step: int) -> Any:
        """Shapes and types of all parameters of a checkpoint. Raises DamagedCheckpointError."""
        self._verify(step, "params/_METADATA")
        try:
            return self._parameters.metadata(self.directory / str(step) / "params").tree
        except (AttributeError, KeyError, TypeError, ValueError, OSError) as e:
            raise self._unreadable(step, e) from e

    def _check_finite(self, step: int, tree: Any) -> None:
        """Raises UserError for NaN or infinity: what is computed from them is wrong, and not always seen to be."""
        if where := first_not_finite(tree):
            before = [other for other in self.steps() if other < step]
            back = f"take step {before[-1]}, and remove this one to resume from there" if before else "start again"
            raise UserError(
                f"checkpoint {self.directory / str(step)}: all numbers must be finite, and {where} holds NaN or "
                f"infinity, as of a run that diverged; {back}"
            )

    def _check_architecture(self, step: int, abstract: Any, names: Any, stored: Any) -> None:
        mismatch = describe_mismatch(names, abstract, stored)
        if mismatch:
            raise UserError(
                f"the checkpoint {self.directory / str(step)} is of another architecture: {mismatch}; "
                "use the model of the config.json beside it, or choose another --workdir"
            )

    def config(self, step: int) -> dict[str, Any]:
        """The configuration a checkpoint was written with."""
        try:
            config = self._read(step, config=ocp.args.JsonRestore())["config"]
        except (ValueError, RecursionError) as e:
            raise self._unreadable(step, e) from e
        if not isinstance(config, dict):
            raise self._unreadable(step, ValueError("its configuration holds no fields"))
        return config

    def _read(self, step: int, **items: Any) -> Any:
        """Restores items of a checkpoint; see `_guarded`."""
        self._verify(step, *items)
        return self._guarded(step, functools.partial(self._restored, step, **items))

    def _restored(self, step: int, **items: Any) -> Any:
        return self._manager.restore(step, args=ocp.args.Composite(**items))

    def _verify(self, step: int, *parts: str) -> None:
        """Raises DamagedCheckpointError if a file of these parts is not what was written; each is looked at once, by
        the first process, for all: others that saw an error of their own would take another checkpoint.
        """
        new = [part for part in parts if (step, part) not in self._verified]
        if in_bucket(self.directory) or not new:
            return
        known = [part for of, part in self._verified if of == step]
        wrong = damaged_file(Path(self.directory / str(step)), new, known) if hosts.is_first() else ""
        if wrong := hosts.text_of_first_process(wrong):
            raise self._unreadable(step, ValueError(f"{wrong} is not as it was written"))
        self._verified.update((step, part) for part in new)

    def _guarded(self, step: int, read: Callable[[], Any]) -> Any:
        """Reads. Raises DamagedCheckpointError for files that are truncated or missing."""
        try:
            return read()
        except Exception as e:
            if not any(isinstance(x, FileNotFoundError) or _DAMAGE.search(str(x)) for x in hosts.causes(e)):
                raise
            raise self._unreadable(step, e) from e

    def _unreadable(self, step: int, error: Exception) -> DamagedCheckpointError:
        what = next((m for x in hosts.causes(error) if (m := _DAMAGE.search(str(x)))), None)
        why = " ".join((what[0] if what else str(error) or type(error).__name__).split())[:120]
        others = ", ".join(str(other) for other in self.steps() if other != step) or "none"
        return DamagedCheckpointError(
            f"checkpoint {self.directory / str(step)} cannot be read ({why}); copy it again, or take another (--step): "
            f"there are {others}"
        )


def optimizer_part(state: State) -> dict[str, Any]:
    """The part stored beside the parameters: every auxiliary tree by name, with the average always present."""
    return {"step": state.step, "opt_state": state.opt_state, AVERAGE: {}, **state.extra}


def _state(params: Any, part: dict[str, Any]) -> State:
    extra = {name: tree for name, tree in part.items() if name not in ("step", "opt_state") and tree}
    return State(step=part["step"], params=params, opt_state=part["opt_state"], extra=extra)


def _parts(folder: str, whole: bool) -> tuple[str, ...]:
    return (folder,) if whole else tuple(f"{folder}/{name}" for name in _METADATA)


def _same_shapes(one: Any, other: Any) -> bool:
    return [x.shape for x in jax.tree.leaves(one)] == [x.shape for x in jax.tree.leaves(other)]


def _leading_block(x: jax.ShapeDtypeStruct) -> ocp.ArrayRestoreArgs:
    return ocp.ArrayRestoreArgs(sharding=x.sharding, global_shape=x.shape, dtype=x.dtype, strict=False)


def _target(abstract: Any, shardings: Any) -> Any:
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)
