"""How much does an encoder help segmentation? Pretrained, random and cut; trained whole and frozen; three seeds.

    python -m scaling.efficiency --checkpoint=DIR --config=efficiency_pixels.py:pairs:../shared/data/roads \\
        --output=runs/pixels_roads
    python -m scaling.efficiency --checkpoint=DIR --config=efficiency_pixels.py:pairs:../shared/data/roads \\
        --output=runs/pixels_roads --config.fractions="(0.1,)"

All encoders use the same light head on four layers. `noise` is a random encoder that is not trained, and `embedding`
the patch embedding without any block, which shows the contribution of the head alone. 20 minutes on two cores for
encoders of 5 million parameters and 1,000 crops of 128 pixels per run; `--config.recipe.epochs=` for more.
`results/README.md` describes `../shared/data`.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.data.config import DataConfig
from scaling.objectives import objective_config
from scaling.studies.efficiency.settings import EfficiencyConfig, EncoderChoice
from scaling.training.config import FinetuneConfig
from scaling.training.optimizer import OptimizerConfig


def get_config(source: str = "pairs:DIR") -> ConfigDict:
    recipe = FinetuneConfig(
        epochs=14.0,
        warmup_epochs=2.0,
        batch_size=8,
        checkpoint_every=50,
        log_every=20,
        eval_every=1000,
        task=objective_config("segmentation", head="mlp", channels=64),
        data=DataConfig(source=source, eval_split="test[:4]", crop="ratio", photometric="rgb", flips="dihedral"),
        optimizer=OptimizerConfig(base_lr=1.6e-2, beta2=0.999, layer_decay=0.75),
    )
    encoders = {
        "pretrained": EncoderChoice(),
        "random": EncoderChoice(weights="random"),
        "frozen": EncoderChoice(frozen=True),
        "noise": EncoderChoice(weights="random", frozen=True),
        "embedding": EncoderChoice(weights="embedding", frozen=True),
        "cut": EncoderChoice(width_ratio=0.25, frozen=True),
        "repaired": EncoderChoice(width_ratio=0.25, ordering="svd", recovery="ridge", frozen=True),
    }
    return config_dict(EfficiencyConfig(study="pixels", recipe=recipe, encoders=encoders, fractions=(1.0,)))
