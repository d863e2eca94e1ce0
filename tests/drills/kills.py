"""Kills: SIGKILL and SIGTERM at random moments of real commands, which are then started again until they finish. The
results are those of an undisturbed run to the last bit: nothing half-written was taken for whole.
"""

import dataclasses
import functools
import hashlib
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.commands import command, train_command
from tests.data.examples import class_folders
from tests.drills.cases import DEFECT, FINE, MISSED, Outcome, Part, differing, inputs_folder, random_of
from tests.drills.forks import Done, Fresh, Running, commands_imported, finished
from tests.drills.phases import IMPORTS, Interval, Moment, intervals

COUNT = 20  # cases of a command, of one to three kills each
# Starting, compiling, evaluating and saving are most of a short run.
SHORT: dict[str, Any] = {"steps": 12, "checkpoint_every": 3, "eval_every": 6, "checkpoint.keep_last": 2}
_UNFINISHED = (".unfinished-", ".orbax-checkpoint-tmp")  # in the names of what is being written
_RATES = ("images_per_second", "seconds", "data_wait", "goodput", "memory_gib", "time", "mfu", "eta", "elapsed")
_UNMEASURED = ("device", "versions", "outcomes")
_CODES = {signal.SIGKILL: {-9}, signal.SIGTERM: {143, -15}}

Results = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """A command that is killed.

    Attributes:
      name: of the command.
      line: the command, given a folder with inputs and the folder to write.
      results: everything it computed, given that folder.
    """

    name: str
    line: Callable[[Path, Path], list[str]]
    results: Callable[[Path], Results]

    def run(self, cases: Iterable[int]) -> Iterator[Outcome]:
        """Kills the command in every case."""
        with tempfile.TemporaryDirectory(prefix="drills-kills-") as folder, commands_imported():
            whole, expected = _undisturbed(self)
            for case in cases:
                yield self._case(case, Path(folder) / str(case), whole, expected)

    def _case(self, case: int, folder: Path, whole: list[Interval], expected: Results) -> Outcome:
        rng, said, hits = random_of(f"kills:{self.name}", case), [], 0
        line = self.line(_inputs(), folder)
        for _ in range(rng.choice((1, 1, 2, 3))):
            how, name = rng.choice((signal.SIGKILL, signal.SIGTERM)), "" if said else _first(case, whole)
            done, moment = killed(line, folder, how, rng, whole, name)
            said.append(f"{how.name} {moment}")
            if done.code == 0 or (len(said) > 1 and _whole_already(done)):
                said[-1] += ", too late"
                break
            hits += 1
            if done.code not in _CODES[how] or "Traceback" in done.err:
                return Outcome(case, DEFECT, f"{', '.join(said)}: code {done.code}: {done.err[-300:]!r}")
        if done.code:
            done = Running(line).end()
            if done.code and not _whole_already(done):
                return Outcome(case, DEFECT, f"{', '.join(said)}: then code {done.code}: {done.err[-300:]!r}")
        found = self.results(folder)
        wrong = differing(expected, found)
        shutil.rmtree(folder)
        if wrong:
            shown = f"{wrong[0]}: {expected.get(wrong[0])} is {found.get(wrong[0])}"
            return Outcome(case, DEFECT, f"{', '.join(said)}: {len(wrong)} other results: {shown[:600]}")
        return Outcome(case, FINE if hits else MISSED, ", ".join(said))

    def part(self) -> Part:
        return Part(f"kills:{self.name}", f"`{self.name}` killed up to three times", self.run, COUNT, 1, 1, kept=True)


@functools.cache
def _undisturbed(job: Job) -> tuple[list[Interval], Results]:
    """Phases and results of a command that is not killed, run once for all its cases."""
    with tempfile.TemporaryDirectory(prefix="drills-kills-") as folder:
        finished(Running(job.line(_inputs(), Path(folder) / "first")))  # compiles what all others reuse
        phases = Path(folder) / "phases"
        finished(Fresh(job.line(_inputs(), Path(folder) / "whole"), phases))
        return intervals(phases, time.monotonic()), job.results(Path(folder) / "whole")


def _whole_already(done: Done) -> bool:
    """Whether a command refuses to write again what it had written when it was killed, before its end."""
    return done.code == 2 and " already" in done.err


def _first(case: int, whole: list[Interval]) -> str:
    """The phase of the first kill in every second four of the cases, one phase after the other; empty in the others."""
    names = list(dict.fromkeys(x.name for x in whole))
    return names[case % len(names)] if case % 8 < 4 else ""


def killed(
    line: list[str], folder: Path, how: signal.Signals, rng: random.Random, whole: list[Interval], name: str = ""
) -> tuple[Done, str]:
    """Starts a command and kills it: in one of its phases, imports included, and in the one named if there is one; at a
    random time behind the imports; or when a file is being written or has appeared. Returns its end and the moment.
    """
    kind = "start" if name else rng.choice(("start", "any", "unfinished", "unfinished", "file"))
    moment, limit = Moment.drawn(rng, whole, name), sum(x.seconds for x in whole[1:]) * rng.uniform(0.2, 1.0)
    delay, wanted = 0.0 if kind == "start" else rng.choice((0.0, 0.002, 0.02)), rng.randrange(1, 12)
    with tempfile.TemporaryDirectory(prefix="drills-phases-") as noted:
        phases = Path(noted) / "phases"
        running = Fresh(line, phases) if kind == "start" else Running(line, phases=phases)
        while running.alive():
            if moment.is_past(phases) if kind == "start" else kind == "any" and running.seconds() > limit:
                break
            there = _names(folder)
            if kind == "unfinished" and _writing(there) and rng.random() < 0.3:
                break
            if kind == "file" and len(there) >= wanted * 3:
                break
            time.sleep(0.003)
        time.sleep(delay)
        said = f"{_phase(phases, folder)} ({kind}) at {running.seconds():.2f} s"
        if running.alive() and running.process.pid:
            os.kill(running.process.pid, how)
        return running.end(), said


def _names(folder: Path) -> list[str]:
    """Names of all files and folders below one, which may be removed meanwhile."""
    return [name for _, folders, files in os.walk(folder) for name in (*folders, *files)]


def _writing(names: list[str]) -> bool:
    return any(unfinished in name for name in names for unfinished in _UNFINISHED)


def _phase(phases: Path, folder: Path) -> str:
    """What a command does now: its phase, or `saving`."""
    if _writing(_names(folder)):
        return "saving"
    return next((x.name for x in reversed(intervals(phases, time.monotonic()))), IMPORTS)


@functools.cache
def _inputs() -> Path:
    """What the commands read: a trained checkpoint, images in folders, and a file of weights."""
    folder = inputs_folder("kills")
    finished(Running(train_command(folder / "run", SHORT)))
    class_folders(folder / "images", 40)
    return folder


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _metrics(folder: Path) -> Results:
    """The rows of training, each step once, without rates."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in row.items() if not any(rate in k for rate in _RATES)} for row in rows]
    return {f"row {i}": row for i, row in enumerate(kept)}


def _parameters(folder: Path) -> Results:
    """Checksums of all arrays of the newest checkpoint, optimizer included."""
    import orbax.checkpoint as ocp
    from flax.traverse_util import flatten_dict

    steps = sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    found: Results = {"step": steps[-1]}  # a run that is asked to stop saves one more on its way
    for item in ("params", "optimizer"):
        with ocp.PyTreeCheckpointer() as reader:
            tree = reader.restore(folder / "checkpoints" / str(steps[-1]) / item)
        flat = flatten_dict(_plain(tree))
        found |= {f"{item} {key}": hashlib.sha256(np.asarray(x).tobytes()).hexdigest() for key, x in flat.items()}
    return found


def _plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {str(key): _plain(value) for key, value in tree.items()}
    return _plain(dict(enumerate(tree))) if isinstance(tree, (list, tuple)) else tree


def _rows(file: Path) -> Results:
    """The rows of a study in any order, without times and what they were measured on."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    timed = ("seconds",)
    kept = [
        {k: v for k, v in row.items() if k not in _UNMEASURED} for row in rows if row["metric"].endswith(timed) is False
    ]
    keys = sorted(json.dumps(row, sort_keys=True) for row in kept)
    return {"rows": keys, "number": len(keys)}


def _train(folder: Path) -> Results:
    return {**_metrics(folder), **_parameters(folder)}


def _finetune(folder: Path) -> Results:
    return {**_metrics(folder), **_rows(folder / "rows.jsonl")}


def _files(folder: Path) -> Results:
    return {
        str(path.relative_to(folder)): _digest(path)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def _cut(folder: Path) -> Results:
    from flax.traverse_util import flatten_dict

    from scaling.encoders.loading import load_encoder

    flat = flatten_dict(_plain(load_encoder(folder).params))
    return {str(key): hashlib.sha256(np.asarray(x).tobytes()).hexdigest() for key, x in flat.items()}


def trained(folder: Path) -> Results:
    """Rows and the encoder: Orbax reads the rest of what several devices wrote only with their layout."""
    return {**_metrics(folder), **_cut(folder)}


def _prepare_line(inputs: Path, folder: Path) -> list[str]:
    return command(
        "prepare", source=f"folder:{inputs}/images", split="train", output=folder, size=16, shard_size=7, workers=1
    )


def _slim_line(inputs: Path, folder: Path) -> list[str]:
    fields = {"widths": "(0.5,1.0)", "datasets.scenes.source": "scenes?size=16&count=60", "components": 4, "draws": 20}
    return command(
        "slim", "--name=tiny", checkpoint=inputs / "run", output=folder, config="slim.py",
        **{f"config.{name}": value for name, value in fields.items()},
    )  # fmt: skip


def _finetune_line(inputs: Path, folder: Path) -> list[str]:
    from tests.test_finetune import finetune

    return finetune(inputs / "run", folder)


def _segment_line(inputs: Path, folder: Path) -> list[str]:
    from tests.test_finetune import SEGMENTING, finetune

    return finetune(inputs / "run", folder, "segment.py", **SEGMENTING)


def _detect_line(inputs: Path, folder: Path) -> list[str]:
    from tests.test_finetune import DETECTING, finetune

    return finetune(inputs / "run", folder, "detect.py", None, **DETECTING)


def _convert_line(inputs: Path, folder: Path) -> list[str]:
    repaired = {"width_ratio": 0.4, "ordering": "svd", "recovery": "ridge", "calibration_images": 16}
    return command("convert", checkpoint=inputs / "run", output=folder, **repaired)


def _search_line(inputs: Path, folder: Path) -> list[str]:
    fields = {"axes": "layers,head_dim", "widths": "0.5", "blocks": "any", "images": 48, "batch": 1}
    return command("search", checkpoint=inputs / "run", budget="params:12000", output=folder, **fields)


def _sweep_line(inputs: Path, folder: Path) -> list[str]:
    from tests.test_sweep import sweep_command

    return sweep_command(folder, {"base.steps": 12, "vary.steps": "(12,)"})


def _prune_line(inputs: Path, folder: Path) -> list[str]:
    return command("prune", checkpoint=inputs / "run", output=folder, rule="keep", keep="0")


JOBS = (
    Job("train", lambda inputs, folder: train_command(folder, SHORT), _train),
    Job("finetune", _finetune_line, _finetune),
    Job("segmentation", _segment_line, _finetune),
    Job("slim", _slim_line, lambda folder: _rows(folder / "rows.jsonl")),
    Job("sweep", _sweep_line, lambda folder: _rows(folder / "rows.jsonl")),
    Job("prepare", _prepare_line, _files),
    Job("detection", _detect_line, _finetune),
    Job("prune", _prune_line, _cut),
    Job("convert", _convert_line, _cut),
    Job("search", _search_line, lambda folder: {**_rows(folder / "rows.jsonl"), **_cut(folder)}),
)
PARTS = tuple(job.part() for job in JOBS)
