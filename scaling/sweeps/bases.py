"""What the shipped sweeps vary: a small masked autoencoder that a CPU trains in minutes."""

from scaling.data.config import DataConfig
from scaling.models.variants import encoder
from scaling.objectives import objective_config
from scaling.training.config import TrainConfig
from scaling.training.optimizer import OptimizerConfig


def small_mae(steps: int = 400) -> TrainConfig:
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
