"""The published cut and the best one, on satellite and on everyday images, with equal numbers of classes and images.

    python results/slimming_hurricane/matched.py --data=../shared/data --output=runs/matched
    python -m scaling.slim --checkpoint=runs/hurricane_ti8 --config=slim_matched.py --output=runs/slim_matched

The encoder is that of `hurricane_ti8.py`. The results are in `results/slimming_hurricane/`. `results/README.md`
describes `../shared/data`. Fine-tuning, which trains every encoder for 100 s on two cores, runs only with
`--config.probes="('finetune',)"`.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.data.config import DataConfig
from scaling.objectives import objective_config
from scaling.studies.slimming.cells import SlimmingStudyConfig
from scaling.studies.slimming.datasets import DatasetConfig
from scaling.training.config import FinetuneConfig
from scaling.training.optimizer import OptimizerConfig


def get_config() -> ConfigDict:
    sources = {
        name: DatasetConfig(source=f"zip:../shared/data/{name}/images.zip?labels=runs/matched/{name}.csv")
        for name in ("rssccn7", "caltech101")
    }
    return config_dict(
        SlimmingStudyConfig(
            study="slimming_matched",
            widths=(0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0),
            orderings=("first", "svd"),
            recoveries=("none", "ridge"),
            probes=("knn", "linear"),
            calibration_source="probed",  # as for the rows in `results/`; `pretraining` is the default
            datasets=sources,
            finetune=FinetuneConfig(
                epochs=40.0,
                batch_size=42,
                log_every=50,
                task=objective_config("classification", label_smoothing=0.1),
                data=DataConfig(flips="horizontal"),
                optimizer=OptimizerConfig(base_lr=3e-3, beta2=0.999, layer_decay=0.75),
            ),
        )
    )
