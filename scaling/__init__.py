"""How much of a vision transformer do we need? Scaling studies of remote-sensing foundation models.

    encoder = scaling.load("runs/quickstart")
    features = encoder.features(images)                                                       # [N, D]
    small = scaling.slim(encoder, 0.25, ordering="svd", recovery="ridge", images=images)

`help(scaling.load)`, and so for every name of `scaling.__all__`; the commands: `scaling --help`.
"""

import importlib
import os
import signal
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

__version__ = "0.1.0"

if TYPE_CHECKING:
    from scaling.api.encoders import Features, features, load, probe, prune, slim
    from scaling.api.runs import finetune, pretrain
    from scaling.api.searches import search
    from scaling.core.errors import TrainingError, UserError
    from scaling.encoders.encoder import Encoder
    from scaling.studies.laws import fit_law

__all__ = [
    "Encoder",
    "Features",
    "TrainingError",
    "UserError",
    "features",
    "finetune",
    "fit_law",
    "load",
    "pretrain",
    "probe",
    "prune",
    "search",
    "slim",
]

# Where each of them is; importing it takes seconds, which only those who use it wait for (PEP 562).
_PLACES = dict.fromkeys(("Features", "features", "load", "probe", "prune", "slim"), "scaling.api.encoders")
_PLACES |= dict.fromkeys(("finetune", "pretrain"), "scaling.api.runs")
_PLACES |= {"fit_law": "scaling.studies.laws", "search": "scaling.api.searches", "Encoder": "scaling.encoders.encoder"}
_PLACES |= dict.fromkeys(("TrainingError", "UserError"), "scaling.core.errors")


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not _PLACES[name].startswith("scaling.core."):
        importlib.import_module("scaling.api")  # chooses JAX's platform before anything asks for a device
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Some functions have the name of the command that does the same. Importing the module of a command would put it in
    the place of the function.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _PLACES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def end_at_once(*_: object) -> NoReturn:
    """Ends the process in one line: the handler of SIGINT (Ctrl-C) where there is nothing to keep."""
    os.write(2, b"interrupted\n")
    os._exit(130)


def take_over_interrupts() -> None:
    """Of a command the imports alone take seconds, in which an exception can end anywhere. `cli.run` takes over from
    here; a shell that starts a job with SIGINT ignored has meant it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)


if sys.argv[:1] == ["-m"]:  # python -m scaling.NAME
    take_over_interrupts()
