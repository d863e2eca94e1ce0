"""How much of a vision transformer do we need? Scaling studies of remote-sensing foundation models.

    encoder = scaling.load("runs/quickstart")
    features = encoder.features(images)                                                       # [N, D]
    small = scaling.slim(encoder, 0.25, ordering="svd", recovery="ridge", images=images)

`help(scaling.load)` documents a function; `scaling.__all__` lists them all, `scaling --help` the commands.
"""

import importlib
import os
import signal
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

__version__ = "0.1.0"

if TYPE_CHECKING:
    from scaling.api.cuts import prune, slim
    from scaling.api.encoders import Features, features, load, probe
    from scaling.api.predictions import Predicted, predict
    from scaling.api.runs import finetune, pretrain
    from scaling.api.searches import search
    from scaling.core.errors import TrainingError, UserError
    from scaling.encoders.encoder import Encoder
    from scaling.studies.laws import fit_law

__all__ = [
    "Encoder",
    "Features",
    "Predicted",
    "TrainingError",
    "UserError",
    "features",
    "finetune",
    "fit_law",
    "load",
    "predict",
    "pretrain",
    "probe",
    "prune",
    "search",
    "slim",
]

# The module of each name, imported on first use (PEP 562): the import takes seconds.
_PLACES = dict.fromkeys(("Features", "features", "load", "probe"), "scaling.api.encoders")
_PLACES |= dict.fromkeys(("prune", "slim"), "scaling.api.cuts")
_PLACES |= dict.fromkeys(("finetune", "pretrain"), "scaling.api.runs")
_PLACES |= dict.fromkeys(("Predicted", "predict"), "scaling.api.predictions")
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
    """A package in which importing the module of a command, such as `scaling.slim`, does not replace the function of
    the same name.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _PLACES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def end_at_once(*_: object) -> NoReturn:
    """Handler of SIGINT (Ctrl-C) while there is nothing to save: ends the process with a one-line message."""
    os.write(2, b"interrupted\n")
    os._exit(130)


def take_over_interrupts() -> None:
    """Handles Ctrl-C during the imports of a command, which take seconds, until `cli.run` takes over; a process that
    was started with SIGINT ignored keeps ignoring it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)


if sys.argv[:1] == ["-m"]:  # python -m scaling.NAME
    take_over_interrupts()
