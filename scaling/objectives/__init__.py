"""Training objectives: each has a configuration beside the encoder's, and a loss. A new objective is one new file.

A configuration names its kind. A kind is registered by `@objective` above its configuration's class, or by `@task` if
it needs labels, in a file that its users import.
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
