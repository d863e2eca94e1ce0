"""What is learned: a configuration of its own beside the encoder's, and a loss. A new objective is one new file.

A configuration names its kind. A kind is added by `@objective` above its configuration's class, or by `@task` where it
needs labels, in a file that whoever uses it imports.
"""

from scaling.objectives.base import (
    OBJECTIVES,
    TASKS,
    Batch,
    Inputs,
    Objective,
    ObjectiveConfig,
    objective,
    objective_config,
    task,
    title,
)

__all__ = [
    "OBJECTIVES",
    "TASKS",
    "Batch",
    "Inputs",
    "Objective",
    "ObjectiveConfig",
    "objective",
    "objective_config",
    "task",
    "title",
]
