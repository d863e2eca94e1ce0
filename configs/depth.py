"""The score of every depth: the first c blocks of an encoder under k-NN, a linear probe and fine-tuning, beside random
weights of the same depths. A quarter of an hour on two cores for four blocks.

    python -m scaling.slim --checkpoint=runs/quickstart --config=depth.py --output=runs/depth

Your own images instead of the scenes: `--config=depth.py:NAME=SOURCE`, such as `depth.py:mine=folder:tiles`.
`--config.probes="('knn','linear')"` leaves out the fine-tuning, which takes most of the time.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.core.errors import UserError
from scaling.data.config import DataConfig
from scaling.objectives import objective_config
from scaling.studies.slimming.cells import SlimmingStudyConfig
from scaling.studies.slimming.datasets import DatasetConfig
from scaling.training.config import FinetuneConfig
from scaling.training.optimizer import OptimizerConfig


def get_config(own: str = "") -> ConfigDict:
    name, _, source = own.partition("=")
    if own and not (name.isidentifier() and source):
        raise UserError(f"--config=depth.py:{own}: give NAME=SOURCE, such as depth.py:mine=folder:tiles")
    scenes = DatasetConfig(source="scenes?size=48", limit=1000)
    recipe = FinetuneConfig(
        epochs=10.0,
        warmup_epochs=2.0,
        batch_size=64,
        task=objective_config("classification", label_smoothing=0.1),
        data=DataConfig(flips="dihedral"),
        optimizer=OptimizerConfig(base_lr=2e-3, beta2=0.999, layer_decay=0.65),
    )
    return config_dict(
        SlimmingStudyConfig(
            study="depth",
            modes=("layers",),
            every_depth=True,
            probes=("knn", "linear", "finetune"),
            controls=("depth_0", "random_weights"),
            floors=(),
            finetune=recipe,
            datasets={name: DatasetConfig(source=source)} if own else {"scenes": scenes},
        )
    )
