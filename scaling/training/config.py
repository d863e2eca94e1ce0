"""The configuration of one training run."""

import dataclasses

from scaling.data.config import DataConfig
from scaling.errors import UserError
from scaling.models.mae import MAEConfig
from scaling.parallel.mesh import MeshConfig
from scaling.training.checkpoints import CheckpointConfig
from scaling.training.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on; the same configuration gives the same losses.

    Attributes:
      seed: of parameters, masks, crops and the order of the data.
      steps, batch_size: number of updates, and images in each of them over all devices.
      checkpoint_every, log_every, eval_every: in steps. The last step is always saved, logged and evaluated.
      accumulate: microbatches per step, for batches that do not fit.
      dtype: of activations and matrix products; `auto` is bfloat16 on accelerators and float32 on CPUs.
      average: decay of a moving average of the parameters; 0 keeps none.
      wandb: project to log to, empty for none.
    """

    seed: int = 0
    steps: int = 1000
    batch_size: int = 256
    checkpoint_every: int = 1000
    log_every: int = 50
    eval_every: int = 1000
    accumulate: int = 1
    dtype: str = "auto"
    average: float = 0.0
    wandb: str = ""
    model: MAEConfig = dataclasses.field(default_factory=MAEConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)

    def check(self) -> None:
        """Raises UserError for whatever can be known to be wrong before anything is loaded."""
        self.model.check()
        self.optimizer.check()
        for field in ("steps", "batch_size", "checkpoint_every", "log_every", "eval_every", "accumulate"):
            if getattr(self, field) < 1:
                raise UserError(f"{field}={getattr(self, field)} must be at least 1")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise UserError(f"dtype={self.dtype!r} is not one of auto, float32, bfloat16")
        if not 0 <= self.average < 1:
            raise UserError(f"average={self.average} is a decay, at least 0 and below 1")
