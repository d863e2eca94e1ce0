"""What is learned: a configuration of its own beside the encoder's, and a loss. A new objective is one new file.

A configuration names its kind; `KINDS` has them all. A kind is added by `@kind` above its configuration's class, in a
file that whoever uses it imports.
"""

from scaling.objectives import classification, mae  # noqa: F401  the kinds that are shipped
from scaling.objectives.base import KINDS, Batch, Inputs, Objective, ObjectiveConfig, kind, objective_config

__all__ = ["KINDS", "Batch", "Inputs", "Objective", "ObjectiveConfig", "kind", "objective_config"]
