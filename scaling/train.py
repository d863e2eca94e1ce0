"""Pretrains a masked autoencoder, on one CPU or a pod.

    python -m scaling.train --config=vit_h.py --workdir=DIR [--config.path.to.field=value ...]

A bare config name is looked up in `configs/`. Starting the same command again goes on from the newest checkpoint of the
working directory, on any mesh and number of hosts, with the same losses to the last bit on the same devices.

The working directory (a bucket `gs://...` too) holds `config.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/` and
`figures/`. Several hosts: start the command on each of them with `--coordinator=auto` on Cloud TPU, or with
`--coordinator=HOST:PORT --processes=N --process=K`.
"""

from etils import epath
from ml_collections import config_flags

from scaling import cli
from scaling.config import from_config_dict
from scaling.errors import UserError
from scaling.training.config import TrainConfig
from scaling.training.run import train

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, by path or by bare name.")
_WORKDIR = cli.define_path("workdir", None, "Where the run is kept; goes on from its newest checkpoint.")
_CHANGE = cli.define_change_flag()
_JOIN = cli.define_process_flags()


def main(argv: list[str]) -> int:
    del argv
    if _CONFIG.value is None or _WORKDIR.value is None:
        raise UserError("give --config=FILE and --workdir=DIR")
    config = from_config_dict(TrainConfig, _CONFIG.value)
    config.check()
    _JOIN()
    return train(config, epath.Path(_WORKDIR.value), _CHANGE.value)


if __name__ == "__main__":
    cli.run(main)
