"""The configuration of one training run, and the part that the compiled step takes from it."""

import dataclasses
import math
from functools import partial
from typing import Self

from scaling.core.errors import UserError
from scaling.data.config import OF_ANY_BANDS, DataConfig
from scaling.models import attention
from scaling.models.config import ViTConfig
from scaling.objectives import OBJECTIVES, TASKS, ObjectiveConfig, objective_config
from scaling.parallel.mesh import MeshConfig
from scaling.training.checkpoints import CheckpointConfig
from scaling.training.optimizer import OptimizerConfig
from scaling.training.parametrization import ParametrizationConfig


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything a run depends on; the same configuration gives the same losses.

    Attributes:
      seed: seed of parameters, masks, crops and the order of the data.
      steps, batch_size: number of updates, and number of images in each of them over all devices.
      checkpoint_every, log_every, eval_every: intervals in steps. The last step is always saved, logged and evaluated.
      checkpoint_minutes: maximum minutes between two checkpoints, regardless of `checkpoint_every`; 0 for no limit.
      accumulate: microbatches per step, for batches that do not fit in memory.
      dtype: dtype of activations and matrix products; `auto` is bfloat16 on accelerators and float32 on CPUs.
      ema_decay: decay of a moving average of the parameters, which is evaluated beside them; 0 keeps none.
      early_stopping: number of consecutive evaluations without an improvement of `checkpoint.best` after which the run
        ends; 0 to train to the last step. A value that is not finite is never an improvement. Fine-tuning is then
        scored with the parameters of the best step.
      wandb: project to log to, empty for none.
    """

    seed: int = 0
    steps: int = 1000
    batch_size: int = 256
    checkpoint_every: int = 1000
    checkpoint_minutes: float = 0.0
    log_every: int = 50
    eval_every: int = 1000
    accumulate: int = 1
    dtype: str = "auto"
    ema_decay: float = 0.0
    early_stopping: int = 0
    wandb: str = ""
    model: ViTConfig = dataclasses.field(default_factory=ViTConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)

    def check(self) -> None:
        """Raises UserError for errors that can be found before anything is loaded."""
        self.model.check()
        self.optimizer.check()
        self.checkpoint.check()
        for field in ("steps", "batch_size", "checkpoint_every", "log_every", "eval_every", "accumulate"):
            if getattr(self, field) < 1:
                raise UserError(f"{field}={getattr(self, field)}: must be at least 1")
        if self.checkpoint_minutes < 0:
            raise UserError(f"checkpoint_minutes={self.checkpoint_minutes}: must not be negative; 0 for no limit")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"seed={self.seed}: must be at least 0 and below 2^31")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise UserError(f"dtype={self.dtype!r}: must be one of auto, float32, bfloat16")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay={self.ema_decay}: must be at least 0 and below 1")
        if self.early_stopping < 0:
            raise UserError(f"early_stopping={self.early_stopping}: must not be negative; 0 for never")
        if self.early_stopping and not self.checkpoint.best:
            raise UserError(
                f"early_stopping={self.early_stopping}: needs a metric that must improve; set "
                "checkpoint.best, such as eval_loss"
            )


@dataclasses.dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Pretraining of an encoder.

    Attributes:
      objective: objective of the pretraining; see `scaling.objectives`.
      parametrization: dependence of initialisation and learning rates on the sizes of the networks.
      init_from: checkpoint with the initial parameters (`scaling.training.beginning`); empty to initialise them at
        random.
      encoder: identifies these parameters; follows from `init_from` and is not set.
    """

    objective: ObjectiveConfig = dataclasses.field(
        default_factory=partial(objective_config, "mae"), metadata={"kinds": OBJECTIVES}
    )
    parametrization: ParametrizationConfig = dataclasses.field(default_factory=ParametrizationConfig)
    init_from: str = ""
    encoder: str = ""

    def check(self) -> None:
        super().check()
        self.objective.check(self.model)
        self.parametrization.check(self.model, self.objective)
        other = OF_ANY_BANDS.get(self.data.photometric)
        if other and self.model.bands != 3:
            raise UserError(
                f"data.photometric={self.data.photometric}: needs three 8-bit colours, not model.bands="
                f"{self.model.bands}; {other} is for any bands"
            )
        if self.data.fraction != 1:
            raise UserError(
                f"data.fraction={self.data.fraction}: applies only to labelled images; write a subset as train[:10%]"
            )
        if self.encoder and not self.init_from:
            raise UserError("encoder follows from init_from; leave it out")
        if self.optimizer.layer_decay != 1:
            raise UserError("optimizer.layer_decay only applies to fine-tuning; leave it at 1")

    def resolved(self) -> Self:
        """The configuration with the parametrization's forward-pass factors written into the model and the
        objective.
        """
        model, objective = self.parametrization.resolve(self.model, self.objective)
        return dataclasses.replace(self, model=model, objective=objective)


@dataclasses.dataclass(frozen=True)
class FinetuneConfig(RunConfig):
    """Supervised training of a pretrained encoder and the head of a task; see `scaling.finetune`.

    The architecture of `model` is that of the checkpoint, and the classes are those of the data: neither is set here.
    `data.split` is for training, and `data.eval_split` (by default a part of the former) for monitoring. Unless set,
    `data.mean` and `data.std` follow from `normalise`.

    Attributes:
      epochs: passes over the training images; `steps` follows from it and is not set.
      warmup_epochs: epochs with a growing learning rate, among `epochs`; `optimizer.warmup` is not set.
      test_split: split for the final score, measured once with the parameters of the last step or, with
        `early_stopping`, of the best step.
      test_stride: in segmentation and detection, pixels between the starts of neighbouring windows of the model's size,
        through which test images are processed whole and unresized. If training crops have the scale of the images
        (data.crop=ratio without data.resize_base), 0 means three quarters of a window, or for detection 824 of 1024
        pixels, as in DOTA; otherwise 0 resizes test images like those for monitoring.
      image_size, image_width: height and width of the images in pixels; 0 for the checkpoint's, or, if only image_size
        is set, for a square. Positions are resampled to another size.
      normalise: source of the mean and standard deviation: `training`, the pretraining data, or `source`, these images.
      width_ratio, mode, ordering, recovery: the cut of the encoder before training; see `scaling.features`.
      calibration_images: number of unlabelled training images that the cut may use.
      encoder: identifies the initial parameters; follows from the checkpoint and is not set.
      task: head, targets and loss; see `scaling.tasks`.
    """

    epochs: float = 50.0
    warmup_epochs: float = 5.0
    test_split: str = "test"
    test_stride: int = 0
    image_size: int = 0
    image_width: int = 0
    normalise: str = "training"
    width_ratio: float = 1.0
    mode: str = "inner"
    ordering: str = "first"
    recovery: str = "none"
    calibration_images: int = 256
    encoder: str = ""
    task: ObjectiveConfig = dataclasses.field(
        default_factory=partial(objective_config, "classification"), metadata={"kinds": TASKS}
    )

    @property
    def tests_whole_images(self) -> bool:
        """Whether test images are processed whole, through windows, if the task supports it; see `test_stride`."""
        return self.test_stride > 0 or (self.data.crop == "ratio" and not self.data.resize_base)

    def check(self) -> None:
        # In a recipe, the blocks and tokens are not yet known: they follow from the checkpoint.
        if (self.model.window or self.model.relative) and not self.encoder:
            plain = dataclasses.replace(self.model, window=0, global_blocks=(), relative=False)
            dataclasses.replace(self, model=plain).check()
            return
        super().check()
        self.task.check(self.model)
        if not 0 < self.epochs < math.inf:
            raise UserError(f"epochs={self.epochs}: must be above 0 and finite")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise UserError(
                f"warmup_epochs={self.warmup_epochs}: must be between 0 and epochs={self.epochs}; set warmup_epochs "
                f"too, to {self.epochs / 10:g} for example"
            )
        if self.test_stride < 0:
            raise UserError(
                f"test_stride={self.test_stride}: must not be negative; 0 for the default, which depends on data.crop"
            )
        for field in ("image_size", "image_width"):
            if getattr(self, field) < 0:
                raise UserError(f"{field}={getattr(self, field)}: must not be negative; 0 for that of the checkpoint")
        if self.image_width and not self.image_size:
            raise UserError(f"image_width={self.image_width}: needs the height too; set image_size")
        if self.normalise not in ("training", "source"):
            raise UserError(f"normalise={self.normalise!r}: must be one of training, source")


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """All that the compiled step depends on; `tpu.preflight` compiles from the same description.

    Attributes:
      objective: configuration of the loss.
      mean, std: mean and deviation of each band in the units of the data; images are normalised on the device.
      rgb: bands that pictures show, see `DataConfig`.
      accumulate: number of microbatches whose gradients are averaged before an update.
      ema_decay: decay of the moving average of the parameters; 0 keeps none.
    """

    model: ViTConfig
    objective: ObjectiveConfig
    optimizer: OptimizerConfig
    mesh: MeshConfig
    seed: int
    steps: int
    batch_size: int
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rgb: tuple[int, ...] = ()
    accumulate: int = 1
    ema_decay: float = 0.0
    parametrization: ParametrizationConfig = dataclasses.field(default_factory=ParametrizationConfig)


def step_config(c: TrainConfig | FinetuneConfig, platform: str) -> StepConfig:
    """The part of a configuration that the step depends on; `platform` (cpu, tpu, ...) decides the dtype of `auto`.

    Raises:
      UserError: the backend does not have the requested attention.
    """
    dtype = c.dtype
    if dtype == "auto":
        dtype = "float32" if platform == "cpu" else "bfloat16"
    attention.check(c.model, platform, dtype)
    fields = ("model", "optimizer", "mesh", "seed", "steps", "batch_size", "accumulate", "ema_decay")
    values = {field: getattr(c, field) for field in fields}
    values["objective"] = c.objective if isinstance(c, TrainConfig) else c.task
    if isinstance(c, TrainConfig):
        values["parametrization"] = c.parametrization
    return StepConfig(dtype=dtype, mean=c.data.mean, std=c.data.std, rgb=c.data.rgb, **values)
