"""Runs a command and notes when it begins to import, check, compile and compute, so that it can be killed there.

python -m tests.drills.phases FILE COMMAND [ARGUMENT …]
"""

import dataclasses
import functools
import importlib
import random
import runpy
import sys
import time
from pathlib import Path

IMPORTS, CHECKS, COMPILING, COMPUTING = PHASES = ("imports", "checks", "compiling", "computing")
_ENDED = {"jaxpr_trace_duration": COMPILING, "backend_compile_duration": COMPUTING}  # what follows, by event of JAX


def main(file: Path, module: str, arguments: list[str]) -> None:
    note(file, IMPORTS)
    importlib.import_module(module)
    del sys.modules[module]  # runpy warns of a module that is there already
    watch(file)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def watch(file: Path) -> None:
    """Notes the phases of this process from now on: it has its imports."""
    import jax  # an import of the command's

    note(file, CHECKS)
    jax.monitoring.register_event_duration_secs_listener(functools.partial(_heard, file))


def _heard(file: Path, event: str, *duration: float, **about: str | int) -> None:
    if name := _ENDED.get(event.rpartition("/")[2]):
        note(file, name)


def note(file: Path, name: str) -> None:
    with file.open("a") as f:
        f.write(f"{time.monotonic()} {name}\n")


@dataclasses.dataclass(frozen=True)
class Interval:
    """A phase of a process: its name, beginning (of `time.monotonic`) and seconds."""

    name: str
    began: float
    seconds: float


def intervals(file: Path, end: float) -> list[Interval]:
    """The phases noted so far, in order, until a time."""
    text = file.read_text() if file.exists() else ""
    lines = text.rpartition("\n")[0].splitlines()  # the process may be writing the last
    noted = [(float(at), name) for at, name in map(str.split, lines)]
    changes = [pair for i, pair in enumerate(noted) if not i or noted[i - 1][1] != pair[1]]
    ends = [*(at for at, _ in changes[1:]), end][: len(changes)]
    return [Interval(name, at, until - at) for (at, name), until in zip(changes, ends, strict=True)]


@dataclasses.dataclass(frozen=True)
class Moment:
    """A moment of a process: so many seconds after it has entered a phase for the nth time (0: the first)."""

    name: str
    nth: int
    seconds: float

    @classmethod
    def drawn(cls, rng: random.Random, whole: list[Interval], name: str = "") -> "Moment":
        """A moment of an undisturbed process, in a phase that is named or drawn: any time in it is as likely."""
        name = name or rng.choice([name for name in PHASES if any(x.name == name for x in whole)])
        lengths = [x.seconds for x in whole if x.name == name]
        nth = rng.choices(range(len(lengths)), lengths)[0]
        return cls(name, nth, rng.uniform(0, lengths[nth]))

    def is_past(self, file: Path) -> bool:
        now = time.monotonic()
        began = [x.began for x in intervals(file, now) if x.name == self.name]
        return len(began) > self.nth and now > began[self.nth] + self.seconds


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
