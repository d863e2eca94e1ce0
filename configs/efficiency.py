"""How many labelled scenes does an encoder need? Seven nested fractions of 1,000, three seeds, three encoders.

    python -m scaling.efficiency --checkpoint=runs/quickstart --config=efficiency.py --output=runs/efficiency

An hour on two cores; minutes with `--config.fractions="(0.05,1.0)" --config.seeds="(0,)"`. For your own images set
`--config.recipe.data.source=`. Every fraction is trained for as many steps as ten epochs of all images take.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.data.config import DataConfig
from scaling.objectives import objective_config
from scaling.studies.efficiency.settings import EfficiencyConfig, EncoderChoice
from scaling.training.config import FinetuneConfig
from scaling.training.optimizer import OptimizerConfig


def get_config() -> ConfigDict:
    recipe = FinetuneConfig(
        epochs=10.0,
        warmup_epochs=2.0,
        batch_size=64,
        checkpoint_every=50,
        log_every=20,
        eval_every=200,
        task=objective_config("classification", label_smoothing=0.1),
        data=DataConfig(source="scenes?size=48", split="train[:1000]", eval_split="test[:200]", flips="dihedral"),
        test_split="test[:1000]",
        optimizer=OptimizerConfig(base_lr=2e-3, beta2=0.999, layer_decay=0.65),
    )
    encoders = {
        "pretrained": EncoderChoice(),
        "cut": EncoderChoice(width_ratio=0.25, ordering="svd", recovery="ridge"),
        "random": EncoderChoice(weights="random"),
    }
    return config_dict(EfficiencyConfig(recipe=recipe, encoders=encoders))
