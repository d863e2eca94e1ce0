"""Checkpoints: parameters, optimizer, step and the configuration they belong to, written as one atomic thing.

A checkpoint is `WORKDIR/checkpoints/STEP/`. Its position in the data is its step: the order of the examples is a
function of (seed, position), so there is no iterator to save. `scaling.training.stored` reads checkpoints.
"""

import dataclasses
import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from scaling.core.buckets import of_bucket
from scaling.core.errors import TemporaryError, TrainingError, UserError, first_line
from scaling.core.files import in_bucket
from scaling.core.memory import give_back_freed_memory
from scaling.core.paths import make_folder
from scaling.parallel import hosts
from scaling.training.checksums import write_checksums
from scaling.training.state import State
from scaling.training.stored import StoredCheckpoints, optimizer_part

# Parameters are stored in blocks that are small along every axis, so that parts of them can be read alone.
_IN_BLOCKS = ocp.SaveArgs(chunk_byte_size=2**20)
_TIMEOUT = 3600  # seconds to write a checkpoint in the background, with reading it back for its checksums
_FILE_SIZE = 2**27  # bytes; a file is held in memory until it is full, by default gigabytes of it

# Errors after which a new start would fail in the same way: no space, or no permission.
_FINAL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
# The same as messages: of tensorstore, which writes the arrays, and of gcsfs, which writes everything else to a bucket.
_FINAL_WORDS = re.compile(rf"os_error_code='({'|'.join(map(str, _FINAL))})'|^PERMISSION_DENIED: |^Forbidden: ")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Which checkpoints are kept.

    Attributes:
      keep_last: number of newest checkpoints to keep.
      keep_every: checkpoints at multiples of this step are kept permanently; 0 for none.
      best: held-out metric, such as eval_loss; the evaluated step at which it is best is kept too, in `best/`
        (`scaling.training.best`); empty for none.
      asynchronous: whether training continues while a checkpoint is written.
    """

    keep_last: int = 3
    keep_every: int = 0
    best: str = ""
    asynchronous: bool = True

    def check(self) -> None:
        """Raises UserError for a configuration that would keep nothing."""
        if self.keep_last < 1:
            raise UserError(f"checkpoint.keep_last={self.keep_last}: must be at least 1")
        if self.keep_every < 0:
            raise UserError(f"checkpoint.keep_every={self.keep_every}: must be at least 0")


class Checkpoints(StoredCheckpoints):
    """The checkpoints of one working directory, to which new ones are added; leftovers of a killed process are removed.

    Args:
      workdir, config: working directory, and which checkpoints are kept.
    """

    _where = "workdir"

    def __init__(self, workdir: epath.PathLike, config: CheckpointConfig | None = None):
        self._config = config or CheckpointConfig()
        self._saving = 0
        super().__init__(workdir)

    def _options(self) -> ocp.CheckpointManagerOptions:
        c = self._config
        make_folder(self.directory)
        return ocp.CheckpointManagerOptions(
            max_to_keep=c.keep_last,
            keep_period=c.keep_every or None,
            enable_async_checkpointing=c.asynchronous,
            # fail at once if the folder cannot be made, instead of leaving threads that wait for it for minutes
            async_options=ocp.AsyncOptions(
                timeout_secs=_TIMEOUT,
                create_directories_asynchronously=False,
                post_finalization_callback=self._finish if c.asynchronous else None,
            ),
            cleanup_tmp_directories=True,
        )

    def save(self, step: int, state: State, config: dict[str, Any]) -> None:
        """Starts writing a checkpoint once the previous one is complete; does nothing if the step exists.

        Raises:
          TrainingError: this checkpoint or the previous one could not be written, and retrying would fail in the same
            way: no space, no permission, no such bucket.
          TemporaryError: it could not be written for a temporary reason.
        """
        if step in self.damaged:
            self._manager.delete(step)
            self.damaged.remove(step)
        if step in self.steps():
            return
        blocks = jax.tree.map(lambda _: _IN_BLOCKS, state.params)
        items = ocp.args.Composite(
            params=ocp.args.PyTreeSave(state.params, save_args=blocks, ocdbt_target_data_file_size=_FILE_SIZE),
            optimizer=ocp.args.StandardSave(optimizer_part(state)),
            config=ocp.args.JsonSave(config),
        )
        self._guard(lambda: self._save(step, items))

    def _save(self, step: int, items: ocp.args.Composite) -> None:
        self._manager.wait_until_finished()  # the previous one
        self._saving = step
        self._manager.save(step, args=items, force=True)
        if not self._config.asynchronous:
            try:
                self._finish()
            except BaseException:  # a command that writes one checkpoint is to write it again
                self._manager.delete(step)
                raise

    def _finish(self) -> None:
        self._add_checksums()
        give_back_freed_memory()

    def _add_checksums(self) -> None:
        """Adds checksums to the checkpoint that is being saved: if asynchronously, to what is not yet renamed."""
        if not hosts.is_first() or in_bucket(self.directory):
            return
        unfinished = sorted(self.directory.glob(f"{self._saving}.orbax-checkpoint-tmp*"))
        write_checksums(Path([*unfinished, self.directory / str(self._saving)][0]))

    def wait(self) -> None:
        """Waits for pending writes; for errors see `save`."""
        self._guard(self._manager.wait_until_finished)

    def _guard(self, function: Callable[[], Any]) -> None:
        try:
            self._manager.check_for_errors()
            function()
        except Exception as e:
            if not (of_bucket(e) or isinstance(e, (OSError, ValueError, RuntimeError))):
                raise
            hosts.await_loss(e)  # if a peer process has died, writing fails as well
            raise self._not_written(e) from e

    def _not_written(self, e: Exception) -> UserError:
        final = any(getattr(x, "errno", None) in _FINAL or _FINAL_WORDS.search(str(x)) for x in hosts.causes(e))
        what = f"a checkpoint could not be written to {self.directory}: {first_line(e)}; "
        again = f"start the same command again, it resumes from step {self.latest() or 0}"
        if final:
            return TrainingError(f"{what}make room or get permission there and {again}")
        return TemporaryError(what + again)

    def close(self) -> None:
        """Waits for pending writes, and closes; for errors see `save`."""
        self._guard(self._manager.close)
