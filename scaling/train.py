"""Pretrains an encoder by masked autoencoding (MAE: `vit_h.py`, …) or contrastive learning (MoCo v3: `moco_b.py`).

It runs on anything from one CPU to a pod.

    python -m scaling.train --config=vit_h.py --workdir=DIR [--config.path.to.field=value ...]

A bare config name is looked up in `configs/`. Starting the same command again resumes from the newest checkpoint of the
working directory, on any mesh and number of hosts, with the same losses to the last bit on the same devices.

`--init_from=CHECKPOINT` starts from the parameters of another run or of a converted model, whose encoder has the same
architecture; for another image or patch size, positions and patch embedding are resampled. Decoder and heads are loaded
if the checkpoint has them and their shapes match, and initialised at random otherwise. The step counter and the
learning-rate schedule start from zero; when the run is resumed, the checkpoint is not read again.

The working directory, which may be in a bucket (`gs://...`), holds `config.json`, `metrics.jsonl`, `tensorboard/`,
`checkpoints/` and `figures/`. With `--config.checkpoint.best=eval_loss` it also holds `best/`, the step with the
smallest held-out loss, which is read as `--checkpoint=DIR/best`. With `--config.early_stopping=3` in addition, the run
ends after three consecutive evaluations without improvement. `tensorboard --logdir=DIR/tensorboard` (pip install
tensorboard) shows curves and images. `--print_config` lists all fields of the config; `--dry_run` performs all the
checks of a real start, prints the same messages, and exits without training. Several hosts: start the command on each
of them with `--coordinator=auto` on Cloud TPU, or with `--coordinator=HOST:PORT --processes=N --process=K`.
`--profile=100:110` traces steps 100 to 110 on the first host.
"""

import dataclasses

from etils import epath

from scaling import cli
from scaling.core.config import config_of
from scaling.parallel import hosts
from scaling.training.config import TrainConfig
from scaling.training.loop import Stopped
from scaling.training.pretraining import pretrain, rehearse
from scaling.training.profiling import traced
from scaling.training.workdir import course, on_screen


def define_flags(define: cli.Define) -> None:
    define.config(TrainConfig)
    define.path("workdir", None, "Working directory of the run; resumes from its newest checkpoint.")
    define.path(
        "init_from", None, "Checkpoint to start from: the --workdir of a run, or a checkpoint of scaling.convert."
    )
    define.string("profile", "", "Steps to trace for TensorBoard and XProf, as 100:110.")
    define.change()
    define.dry_run("train")
    define.processes()


@cli.command(define_flags)
def main(argv: list[str], flags: cli.Flags) -> int:
    cli.require(flags, "config=FILE", "workdir=DIR")
    config = config_of(TrainConfig, flags.config)
    if flags.init_from:
        config = dataclasses.replace(config, init_from=flags.init_from)
    config.check()
    watch = traced(on_screen, flags.profile, config.steps)
    cli.join(flags)
    workdir = epath.Path(flags.workdir)
    if flags.dry_run:
        rehearse(config, workdir, flags.change)
        return 0
    outcome = pretrain(config, workdir, flags.change, watch)
    if isinstance(outcome, Stopped):
        return outcome.exit_code
    if hosts.is_first():
        print(course(workdir))
        print(f"next     python -m scaling.probe --checkpoint={workdir} [--source=SPEC]")
    return 0


if __name__ == "__main__":
    cli.run(main)
