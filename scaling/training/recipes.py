"""Recipes: of pretraining the published ones, for any architecture, and two small ones, of minutes and of an hour on a
CPU; of fine-tuning one for small models.

Configs name a recipe and override some of its fields.
"""

import dataclasses
from typing import Any

from scaling.core.config import divided
from scaling.data.config import DataConfig
from scaling.models.config import ViTConfig
from scaling.models.variants import encoder
from scaling.objectives import ObjectiveConfig, objective_config
from scaling.parallel.mesh import MeshConfig, widest_fsdp
from scaling.training.config import FinetuneConfig, TrainConfig
from scaling.training.optimizer import OptimizerConfig

MILLION_AID = 1_000_848  # images in both of its splits; all of them are for pretraining


def mae_recipe(name: str, *, epochs: int = 400, images: int = MILLION_AID, **fields: Any) -> TrainConfig:
    """MAE pretraining as He et al. (2111.06377) do it, for as many epochs as Cha et al. (2304.05215).

    Batch 4096, AdamW (0.9, 0.95), base learning rate 1.5e-4, weight decay 0.05, a tenth of the steps of warm-up (40 of
    400 epochs), cosine to zero, crops of 0.2 to 1 of the area, horizontal flips, normalised targets.

    Args:
      name: an architecture of `scaling.models.variants`.
      epochs, images: length of the run, epochs * images / 4096 steps, independent of `data.source`, which should hold
        that many images. Up to 1,024 of them are held out from training.
      fields: values that override fields of the encoder or of the objective.
    """
    return _published("mae", name, epochs, images, fields)


def moco_recipe(name: str, *, epochs: int = 300, images: int = MILLION_AID, **fields: Any) -> TrainConfig:
    """MoCo v3 pretraining as Chen, Xie and He (2104.02057) do it: batch 4096, AdamW (0.9, 0.999), base learning rate
    1.5e-4, weight decay 0.1, 40 of 300 epochs of warm-up, cosine to zero, two views by the recipe of BYOL from crops of
    0.08 to 1 of the area, fixed positions, frozen patch projection. Unlike theirs, only kernels decay.

    Args:
      name, epochs, images, fields: see `mae_recipe`.
    """
    c = _published("moco", name, epochs, images, {"position": "sincos_rows", **fields})
    data = dataclasses.replace(c.data, crop_scale=(0.08, 1.0), photometric="byol")
    optimizer = dataclasses.replace(c.optimizer, warmup=round(c.steps * 40 / 300), beta2=0.999, weight_decay=0.1)
    return dataclasses.replace(c, data=data, optimizer=optimizer)


def _published(objective: str, name: str, epochs: int, images: int, fields: dict[str, Any]) -> TrainConfig:
    """Batches of 4096, AdamW at the defaults of MAE, a tenth of the steps as warm-up; for arguments see
    `mae_recipe`.
    """
    batch_size = 4096
    steps = epochs * images // batch_size
    own, others = divided(ViTConfig, fields)
    architecture = encoder(name, **own)
    return TrainConfig(
        steps=steps,
        batch_size=batch_size,
        checkpoint_every=1000,
        log_every=50,
        eval_every=5000,
        model=architecture,
        objective=objective_config(objective, **others),
        data=DataConfig(source=f"scenes?size=256&count={images}"),
        optimizer=OptimizerConfig(warmup=steps // 10),
        mesh=MeshConfig(max_fsdp=widest_fsdp(architecture.width)),
    )


def small_mae_recipe(steps: int = 400) -> TrainConfig:
    """ViT of width 64 with heads of 32 and four layers, on images of 32 pixels cut into 64 patches; batches of 128.

    The decoder (width 64, one layer) is the same for all encoders: its share of the compute falls as they grow.
    """
    sizes = {"width": 64, "depth": 4, "heads": 2, "head_dim": 32, "mlp": 256}
    return TrainConfig(
        steps=steps,
        batch_size=128,
        checkpoint_every=max(steps // 4, 1),
        log_every=max(steps // 20, 1),
        eval_every=max(steps // 4, 1),
        model=encoder("vit_ti", image_size=32, patch_size=4, **sizes),
        objective=objective_config("mae", decoder_width=64, decoder_depth=1, decoder_heads=2),
        data=DataConfig(source="scenes?size=48", eval_split="test", eval_examples=1024, flips="dihedral"),
        optimizer=OptimizerConfig(base_lr=2e-3, warmup=steps // 10),
    )


def vit_ti8_recipe(source: str) -> TrainConfig:
    """ViT-Ti/8 on images of 64 pixels, 1,500 batches of 128; evaluated on 1,024 images of the split `test`."""
    return TrainConfig(
        steps=1500,
        batch_size=128,
        checkpoint_every=100,
        log_every=50,
        eval_every=150,
        model=encoder("vit_ti", image_size=64, patch_size=8),
        objective=objective_config("mae", decoder_width=128, decoder_depth=2, decoder_heads=4),
        data=DataConfig(source=source, eval_split="test", eval_examples=1024, flips="dihedral"),
        optimizer=OptimizerConfig(base_lr=1.5e-3, warmup=100),
    )


def vit_ti8_moco_recipe(source: str) -> TrainConfig:
    """The same encoder, steps, batch, crops (0.2 to 1 of the area) and images, trained by MoCo v3 with heads an eighth
    as wide as published. The learning rate was not tuned.
    """
    c = with_optimizer(vit_ti8_recipe(source), beta2=0.999, weight_decay=0.1)
    return dataclasses.replace(
        c,
        model=dataclasses.replace(c.model, position="sincos_rows"),
        objective=objective_config("moco", hidden=512, outputs=256),
        data=dataclasses.replace(c.data, photometric="byol"),
    )


def slimmable(c: TrainConfig, **fields: Any) -> TrainConfig:
    """The same run with its objective at five widths in every step: the full one, an eighth of it and three drawn from
    the eighths in between. A step then has 3.4 times as many operations for MAE, and 2.4 times for MoCo.

    fields: values that override fields of the wrapping objective.
    """
    return dataclasses.replace(c, objective=objective_config("slimmable", wraps=c.objective, **fields))


def classification_recipe(task: ObjectiveConfig, source: str = "") -> FinetuneConfig:
    """20 epochs of fine-tuning after He et al. (2111.06377), on labelled images or the built-in scenes; see
    `configs/finetune.py`.
    """
    scenes = DataConfig(source="scenes?size=48", split="train[:4000]", flips="dihedral")
    return FinetuneConfig(
        epochs=20.0,
        warmup_epochs=5.0,
        batch_size=128,
        checkpoint_every=100,
        log_every=10,
        eval_every=100,
        task=task,
        data=DataConfig(source=source, flips="dihedral") if source else scenes,
        optimizer=OptimizerConfig(base_lr=1e-3, beta2=0.999, layer_decay=0.65),
    )


def with_optimizer(c: TrainConfig, **fields: Any) -> TrainConfig:
    """The same run with some fields of its optimizer changed."""
    return dataclasses.replace(c, optimizer=dataclasses.replace(c.optimizer, **fields))
