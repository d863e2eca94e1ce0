"""A task is added in one file: here a class for every patch, learned from masks."""

import dataclasses
import math
import signal
import time
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.core.config import config_dict
from scaling.core.errors import UserError
from scaling.core.rows import read_rows
from scaling.data.config import DataConfig
from scaling.models.vit import image_input, patchify
from scaling.objectives.base import task
from scaling.parallel.mesh import MeshConfig
from scaling.tasks.classification import Classification, Labelling
from scaling.tasks.finetuning import Finetuning
from scaling.training.config import FinetuneConfig
from scaling.training.optimizer import OptimizerConfig
from tests.commands import command, finish, rows_of, run, start
from tests.encoders.examples import small_encoder
from tpu.compiler.step import compile_step, train_step_for
from tpu.compiler.topology import parse


@task
@dataclasses.dataclass(frozen=True)
class Patchwise(Labelling):
    """Predicts the class of every pixel from the token of its patch: at best right for most of them."""

    name: str = "patchwise"
    pool: str = "tokens"
    ignore: int = 255
    takes: ClassVar[tuple[str, ...]] = ("mask",)
    of_data: ClassVar[tuple[str, ...]] = ("classes", "ignore")

    def with_data(self, info):
        masks = info.target("mask")
        return dataclasses.replace(self, classes=len(masks.classes), ignore=masks.ignore)

    def check(self, model):
        model.check()

    def make(self, model, inputs):
        return Patches(self, model, inputs)


class Patches(Classification):
    def abstract_batch(self, size):
        mask = jax.ShapeDtypeStruct((size, self._c.image_size, self._c.image_size), jnp.uint8)
        return {"image": image_input(self._c, size, jnp.uint8), "mask": mask}

    def inputs(self, seed, step, batch):
        return batch

    def _said(self, params, batch):
        """Log probabilities [B, T, K], and of every pixel of a patch its class [B, T, P], and whether it counts."""
        logits = self.logits(params, batch["image"])[:, self._c.prefix :]
        truth = patchify(batch["mask"][..., None], self._c.patch_size)
        return jax.nn.log_softmax(logits), truth, truth != self.task.ignore

    def _each(self, params, batch):
        said, truth, counts = self._said(params, batch)
        right = jnp.einsum("btk,btpk->b", said, jax.nn.one_hot(truth, self._c.classes))
        return -right / jnp.maximum(counts.sum((1, 2)), 1)

    def loss(self, params, extra, inputs):
        return self._each(params, inputs).mean(), (extra, {})

    def evaluate(self, params, extra, batch):
        return {"loss": (self._each(params, batch) * batch["weight"]).sum(), "weight": batch["weight"].sum()}

    def predict(self, params, extra, batch):
        said, truth, counts = self._said(params, batch)
        right = (said.argmax(-1)[..., None] == truth) & counts
        return {"right": right.sum((1, 2)), "counted": counts.sum((1, 2))}

    def predictions(self, rows):
        return Pixels(float(rows["right"].sum() / rows["counted"].sum()), len(rows["right"]))

    def summary(self, predictions, source, images):
        return f"{predictions.accuracy:.1%} of the pixels of {predictions.images} images of {source}"


@dataclasses.dataclass(frozen=True)
class Pixels:
    accuracy: float
    images: int

    def scores(self):
        return {"accuracy": self.accuracy}

    def intervals(self):
        return {"accuracy": (None, None)}


RECIPE = FinetuneConfig(
    epochs=6.0,
    warmup_epochs=1.0,
    batch_size=16,
    log_every=1,
    checkpoint_every=4,
    task=Patchwise(),
    data=DataConfig(source="scenes?size=16&targets=mask", split="train[:64]", flips="dihedral"),
    test_split="test[:40]",
    optimizer=OptimizerConfig(base_lr=2e-2, layer_decay=0.75),
    mesh=MeshConfig(fsdp=4, tensor=2, min_shard_elements=0),
)


def get_config():  # this file is a config file too
    return config_dict(RECIPE)


def test_it_learns_from_masks_on_a_mesh(tmp_path):
    tuning = Finetuning(small_encoder(), RECIPE)
    assert (tuning.config.task.classes, tuning.config.task.ignore, tuning.config.steps) == (8, 255, 24)
    tuned = tuning.run(tmp_path)
    assert tuned.trained.metrics["loss"] < 0.9 * math.log(8)
    cover = np.concatenate([tuning.test[i]["mask"].ravel() for i in range(40)])
    assert tuned.scores()["accuracy"] > np.bincount(cover).max() / cover.size
    assert tuned.predictions.images == 40


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": DataConfig(source="scenes?size=16", split="train[:64]")}, "has classes of images, but no masks"),
        ({"task": Patchwise(classes=3)}, "task.classes follows from"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Finetuning(small_encoder(), dataclasses.replace(RECIPE, **fields))


@pytest.mark.long
def test_killed_at_any_moment_it_goes_on_to_the_last_bit(uninterrupted_run, tmp_path):
    def tuned(name):
        return command("finetune", config=__file__, checkpoint=uninterrupted_run[0], workdir=tmp_path / name)

    done = run(tuned("straight"), devices=8)
    assert done.returncode == 0, done.stderr
    (row,) = read_rows(tmp_path / "straight" / "rows.jsonl")
    assert f"{row.value:.1%} of the pixels of 40 images of scenes?size=16&targets=mask" in done.stdout
    process, log = start(tuned("killed"), devices=8), tmp_path / "killed" / "metrics.jsonl"
    while process.poll() is None and (not log.exists() or log.read_text().count("\n") < 9):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert finish(process).returncode == -signal.SIGKILL
    done = run(tuned("killed"), devices=8)
    assert done.returncode == 0, done.stderr
    for name in ("loss", "grad_norm", "param_norm", "eval_loss"):
        kept = [[r[name] for r in rows_of(tmp_path / folder) if name in r] for folder in ("straight", "killed")]
        assert kept[0] == kept[1]
    assert read_rows(tmp_path / "killed" / "rows.jsonl")[0].value == row.value


@pytest.mark.long
def test_its_step_is_compiled_for_a_slice():
    pytest.importorskip("libtpu", reason="needs libtpu, the TPU compiler: the extra [tpu]")
    tuning, place = Finetuning(small_encoder(), RECIPE), parse("v5e:2x4")
    train_step = train_step_for(tuning.config, place)
    program = compile_step(train_step, place)
    assert program.arguments > 0
    assert train_step.mesh.shape == {"replica": 1, "fsdp": 4, "tensor": 2}
