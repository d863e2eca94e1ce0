"""Numbers that are not finite: NaN, infinity and what overflows, in checkpoints, images, learning rates and rows.

A command that meets one says so in one line and fails, or leaves it out and says that. It never ends well with a score
that came of one; no checkpoint with one is written, and the checkpoints from before can still be read.
"""

import contextlib
import dataclasses
import functools
import json
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.commands import call, command, train_command
from tests.drills.cases import DEFECT, FINE, REFUSED, Outcome, Part, inputs_folder, random_of
from tests.drills.finite import altered, not_finite, save, written_wrong

Done = subprocess.CompletedProcess[str]
Check = Callable[[Done], str]
SCENES = "scenes?size=16&count=48"
_KINDS = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}
_HUGE = {"3e38": 3e38, "-1e30": -1e30, "1e20": 1e20}


@dataclasses.dataclass(frozen=True)
class Drill:
    """Commands on what is not finite.

    Attributes:
      name, about: name, and what is tried.
      case: makes the inputs of a case in a folder: what was done, the command, and what must hold of its end beside
        that nothing in `FOLDER/out` is wrong.
      count: number of cases.
    """

    name: str
    about: str
    case: Callable[[random.Random, Path], tuple[str, list[str], Check]]
    count: int

    def run(self, cases: Iterable[int]) -> Iterator[Outcome]:
        import jax

        jax.config.update("jax_disable_most_optimizations", True)
        with tempfile.TemporaryDirectory(prefix="drills-numbers-") as folder:
            for case in cases:
                yield self._judged(case, Path(folder) / str(case))
                shutil.rmtree(Path(folder) / str(case))

    def _judged(self, case: int, folder: Path) -> Outcome:
        folder.mkdir()
        what, line, check = self.case(random_of(f"numbers:{self.name}", case), folder)
        what = f"{what}, {line[2].removeprefix('scaling.')}"
        try:
            done = call(line)
        except Exception as error:
            return Outcome(case, DEFECT, f"{what}: {type(error).__name__}: {str(error)[:200]}")
        said = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
        wrong = check(done) or written_wrong(folder / "out")
        if not wrong and done.returncode and (len(said) != 1 or done.stderr.splitlines()[-1:] != said):
            wrong = f"{len(said)} errors: {done.stderr[-200:]!r}"
        if wrong:
            return Outcome(case, DEFECT, f"{what}: {wrong}")
        message = said[0].removeprefix("error: ")[:200] if said else ""
        return Outcome(case, REFUSED if done.returncode else FINE, f"{what}: {message}" if message else what)

    def part(self) -> Part:
        return Part(f"numbers:{self.name}", self.about, self.run, self.count, 4, 4)


def must_fail(done: Done) -> str:
    """Why a command that read a number that is not finite did not fail; empty if it did."""
    return "" if done.returncode else f"exit code 0: {done.stdout[-200:]!r}"


def may_fail(done: Done) -> str:
    """Of numbers that are finite as they are given, or may not be read."""
    return ""


def _encoder_case(rng: random.Random, folder: Path) -> tuple[str, list[str], Check]:
    """Every command that reads an encoder, on one with such a parameter."""
    from scaling.core.config import config_dict
    from scaling.encoders.controls import random_weights
    from scaling.training.state import State
    from tests.encoders.examples import small_encoder

    encoder = random_weights(small_encoder(), 3)
    broken = rng.random() < 0.75
    params, what = altered(encoder.params, rng, _KINDS if broken else _HUGE)
    config = config_dict(dataclasses.replace(encoder.train, model=encoder.config)).to_dict()
    save(folder / "run", 3, State(np.array(3, np.int32), {"encoder": params}, {}, {}), config)
    reader = rng.choice(_READERS)
    # a cut may leave out what is not finite; what it writes is looked through
    check = must_fail if broken and reader not in (_convert, _prune) else may_fail
    return what, reader(folder / "run", folder / "out"), check


def _probe(checkpoint: Path, out: Path, kind: str) -> list[str]:
    return command("probe", "--noraw_pixels", checkpoint=checkpoint, source=SCENES, probe=kind)


def _features(checkpoint: Path, out: Path) -> list[str]:
    return command("features", checkpoint=checkpoint, source=SCENES, output=out / "x.npy")


def _similarity(checkpoint: Path, out: Path) -> list[str]:
    return command("similarity", checkpoint=checkpoint, output=out, source="scenes?size=16&count=64", images=60)


def _prune(checkpoint: Path, out: Path) -> list[str]:
    return command("prune", checkpoint=checkpoint, output=out, rule="keep", keep="0")


def _convert(checkpoint: Path, out: Path) -> list[str]:
    return command("convert", checkpoint=checkpoint, width_ratio=0.5, output=out)


def _search(checkpoint: Path, out: Path) -> list[str]:
    flags = {"axes": "layers", "blocks": "any", "images": 48, "batch": 1, "budget": "params:20000"}
    return command("search", checkpoint=checkpoint, output=out, source=SCENES, **flags)


def _slim(checkpoint: Path, out: Path) -> list[str]:
    from tests.drills.kills import _slim_line

    line = _slim_line(checkpoint.parent, out)
    return [*line, "--config.datasets.scenes.limit=40"]


_TUNED = {
    "epochs": 1.0,
    "warmup_epochs": 0.0,
    "data.split": "train[:32]",
    "test_split": "test[:16]",
    "width_ratio": 1.0,
}


def _finetune(checkpoint: Path, out: Path, **fields: Any) -> list[str]:
    from tests.test_finetune import finetune

    return finetune(checkpoint, out, **{**_TUNED, "checkpoint_every": 1, "eval_every": 1, **fields})


def _segment(checkpoint: Path, out: Path, **fields: Any) -> list[str]:
    from tests.test_finetune import SEGMENTING, finetune

    return finetune(checkpoint, out, "segment.py", **{**SEGMENTING, **_TUNED, **fields})


_READERS: tuple[Callable[[Path, Path], list[str]], ...] = (
    functools.partial(_probe, kind="knn"), functools.partial(_probe, kind="linear"), _features, _similarity, _prune,
    _convert, _search, _slim, _finetune, _segment,
)  # fmt: skip


@functools.cache
def _begun() -> Path:
    """A run of a few steps with a moving average, in a folder that lasts as long as this process."""
    folder = inputs_folder("numbers") / "run"
    done = call(train_command(folder, _RUN))
    if done.returncode:
        raise RuntimeError(done.stderr)
    return folder


_RUN = {"steps": 4, "checkpoint_every": 2, "eval_every": 2, "ema_decay": 0.9, "data.source": "scenes?size=16&count=64"}


def _resume_case(rng: random.Random, folder: Path) -> tuple[str, list[str], Check]:
    """A run whose newest checkpoint has such a number is not resumed."""
    from scaling.core.config import from_config_dict
    from scaling.parallel.mesh import make_mesh
    from scaling.training.config import TrainConfig, step_config
    from scaling.training.step import TrainStep
    from scaling.training.stored import StoredCheckpoints

    shutil.copytree(_begun(), folder / "run")
    with contextlib.closing(StoredCheckpoints(folder / "run")) as there:
        config = there.config(4)
        c = from_config_dict(TrainConfig, config)
        step = TrainStep(step_config(c, "cpu"), make_mesh(c.mesh))
        state = there.restore(4, step.abstract, step.shardings, step.names)
    part = rng.choice(("params", "opt_state", "extra"))
    broken, what = altered(getattr(state, part), rng, _KINDS)
    shutil.rmtree(folder / "run" / "checkpoints" / "4")
    save(folder / "run", 4, dataclasses.replace(state, **{part: broken}), config)

    def check(done: Done) -> str:
        left = {path.name for path in (folder / "run" / "checkpoints").iterdir() if path.name.isdigit()}
        if left != {"2", "4"} or not_finite(folder / "run" / "checkpoints" / "2"):
            return f"checkpoints {sorted(left)} are left"
        return must_fail(done) or ("" if "checkpoints/4: " in done.stderr else f"no step: {done.stderr[-200:]!r}")

    return f"{what} of {part}", train_command(folder / "run", {**_RUN, "steps": rng.choice((4, 6))}), check


def _overflow_case(rng: random.Random, folder: Path) -> tuple[str, list[str], Check]:
    """Training at a learning rate at which it overflows, in float32 or bfloat16."""
    rate, dtype = 10.0 ** rng.uniform(2, 37), rng.choice(("float32", "bfloat16"))
    own = {"optimizer.base_lr": rate, "optimizer.clip_norm": rng.choice((0.0, 1.0)), "dtype": dtype}
    own |= {"optimizer.name": rng.choice(("adamw", "adafactor")), "optimizer.beta2": 0.95}
    own |= {"checkpoint.best": "eval_loss"}
    if rng.random() < 0.3:
        task = rng.choice((_finetune, _segment))
        line = task(_begun(), folder / "out", **own, **{"optimizer.weight_decay": 0.05})
    else:
        also = {"ema_decay": rng.choice((0.0, 0.9)), "optimizer.warmup": 0, "checkpoint_every": 1, "eval_every": 1}
        line = train_command(folder / "out", {**_RUN, **own, **also})

    def check(done: Done) -> str:
        printed = re.search(r"\b(nan|inf)\b", done.stdout)
        if printed and not done.returncode and "is never taken" not in done.stderr:
            return f"exit code 0 with {done.stdout[-200:]!r}"
        named = any(word in done.stderr for word in (" at step ", "NaN or infinity", "not finite"))
        return "" if not done.returncode or named else f"no step: {done.stderr[-200:]!r}"

    return f"learning rate {rate:.0e}, {dtype}", line, check


def _images_case(rng: random.Random, folder: Path) -> tuple[str, list[str], Check]:
    """Images of floats with such a pixel: left out and named, or refused."""
    drawn = np.random.default_rng(rng.randrange(1 << 30))
    pixels = drawn.uniform(0, 255, (24, 16, 16, 3)).astype(np.float32)
    name = rng.choice(sorted(_KINDS | _HUGE))
    for i in rng.sample(range(24), rng.choice((1, 2, 24))):
        pixels[i].flat[rng.randrange(pixels[i].size)] = (_KINDS | _HUGE)[name]
    for i, image in enumerate(pixels):
        place = folder / "images" / f"{i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / f"{i:02d}.npy", image)
    source, out = f"folder:{folder}/images", folder / "out"
    whole = {"train_split": "train[:50%]", "test_split": "train[50%:]"}
    own = {**_RUN, "data.source": source, "data.eval_split": "", "data.max_bad_share": 0.5}
    own |= {"batch_size": 4, "steps": 6}  # every image once
    lines = {
        "train": lambda: train_command(out, own),
        "prepare": lambda: command("prepare", source=source, split="train", output=out, size=16, workers=1),
        "probe": lambda: command("probe", checkpoint=_begun(), source=source, normalise="source", k=1, **whole),
        "features": lambda: command("features", checkpoint=_begun(), source=source, output=out / "x.npy"),
    }
    line = lines[rng.choice(sorted(lines))]()

    def check(done: Done) -> str:
        said = any(word in done.stdout + done.stderr for word in ("not finite", "as large as"))
        return "" if done.returncode or said or name not in _KINDS else f"nothing said: {done.stderr[-200:]!r}"

    return f"{name} in images", line, check


def _rows_case(rng: random.Random, folder: Path) -> tuple[str, list[str], Check]:
    """A law of rows of which some have such a value, or such a number of parameters."""
    from tests.analysis.laws.examples import losses
    from tests.rows import ROW

    x, y = losses("power", noise=0.005)
    rows = [{**vars(ROW), "params": round(n), "metric": "loss", "value": v} for n, v in zip(x, y, strict=True)]
    name, count = rng.choice(sorted(_KINDS)), rng.choice((1, 2, len(rows)))
    for row in rng.sample(rows, count):
        row["value"] = _KINDS[name]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "out").mkdir()
    line = command("laws", str(folder / "rows.jsonl"), y="loss", form="power", resamples=20, json=folder / "out/l.json")

    def check(done: Done) -> str:
        said = done.stdout + done.stderr
        return "" if "left out" in said or done.returncode else f"nothing said: {said[-200:]!r}"

    return f"{name} in {count} rows", line, check


DRILLS = (
    Drill("encoder", "an encoder's parameters, before every command that reads one", _encoder_case, 80),
    Drill("resume", "parameters, optimizer or average of the newest checkpoint", _resume_case, 40),
    Drill("overflow", "learning rates at which training overflows", _overflow_case, 40),
    Drill("images", "pixels of floats", _images_case, 20),
    Drill("rows", "values of rows, before a law", _rows_case, 20),
)
PARTS = tuple(drill.part() for drill in DRILLS)
