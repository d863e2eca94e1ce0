"""An objective is added in one file: here a small momentum distillation with a second view and an auxiliary tree."""

import dataclasses
import signal
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scaling.compute.counting import Tokens, whole_image
from scaling.core.config import config_dict, from_config_dict
from scaling.core.errors import UserError
from scaling.data.arrays import normalise
from scaling.models.config import ViTConfig
from scaling.models.parameters import init_params
from scaling.models.vit import ViT, abstract_vit, image_input
from scaling.objectives import Inputs, objective
from scaling.training.config import TrainConfig
from scaling.training.stored_config import stored_config
from tests.commands import TINY, command, finish, rows_of, run, start
from tests.models.sizes import halves, small
from tests.training.train_steps import BATCH, MESHES, images, on, train_step


@objective
@dataclasses.dataclass(frozen=True)
class Toy:
    """Tokens of one view, to be those that a slowly following copy of the encoder makes of another.

    Attributes:
      momentum: decay of that copy.
    """

    name: str = "toy"
    momentum: float = 0.9

    def check(self, model: ViTConfig) -> None:
        if not 0 <= self.momentum < 1:
            raise UserError(f"objective.momentum={self.momentum}: must be at least 0 and below 1")

    def abstract(self, model: ViTConfig) -> tuple[Any, Any]:
        shapes, names = abstract_vit(model)
        return {"encoder": shapes}, {"encoder": names}

    def tokens(self, model: ViTConfig, whole: bool = False) -> Tokens:
        return whole_image(model)

    def scaled(self, model: ViTConfig, base: "Toy", base_model: ViTConfig, deep: bool) -> "Toy":
        return self

    def make(self, model: ViTConfig, inputs: Inputs) -> "Distillation":
        return Distillation(self, model, inputs)


class Distillation:
    divisible, below_head, picture, coordinates = False, None, None, None

    def __init__(self, c: Toy, model: ViTConfig, inputs: Inputs):
        self._c, self._model, self._of = c, model, inputs
        self.names = c.abstract(model)[1]
        self.extra_names: Mapping[str, Any] = {"target": self.names["encoder"]}

    def abstract_batch(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
        shape = (size, self._model.image_size, self._model.image_size, self._model.bands)
        return dict.fromkeys(("image", "image_1"), jax.ShapeDtypeStruct(shape, jnp.uint8))

    def init(self, seed: Any) -> Any:
        return {"encoder": init_params(ViT(self._model), seed, image_input(self._model))}

    def init_extra(self, params: Any) -> dict[str, Any]:
        return {"target": jax.tree.map(jnp.copy, params["encoder"])}

    def inputs(self, seed: Any, step: jax.Array, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return batch

    def _tokens(self, encoder: Any, images: jax.Array) -> Any:
        x = normalise(images, self._of.mean, self._of.std)
        return ViT(self._model, jnp.dtype(self._of.dtype)).apply({"params": encoder}, x)

    def _losses(self, params: Any, extra: dict[str, Any], batch: dict[str, jax.Array]) -> jax.Array:
        wanted = jax.lax.stop_gradient(self._tokens(extra["target"], batch["image_1"]))
        return jnp.square(self._tokens(params["encoder"], batch["image"]) - wanted).mean((1, 2))

    def loss(self, params: Any, extra: dict[str, Any], inputs: dict[str, jax.Array]) -> Any:
        target = optax.incremental_update(params["encoder"], extra["target"], 1 - self._c.momentum)
        losses = self._losses(params, {"target": target}, inputs)
        return losses.mean(), ({"target": target}, {"spread": losses.std()})

    def evaluate(self, params: Any, extra: dict[str, Any], batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        losses = self._losses(params, extra, batch) * batch["weight"]
        return {"loss": losses.sum(), "weight": batch["weight"].sum()}


def get_config():  # this file is a config file too
    c = TrainConfig(objective=Toy(), **{"model": halves(small())["model"]})
    return config_dict(c)


OVERRIDES = {f"config.{field}": value for field, value in TINY.items() if "decoder" not in field}
OVERRIDES |= {"config.mesh.fsdp": 4, "config.mesh.tensor": 2, "config.ema_decay": 0.9, "config.optimizer.base_lr": 1e-3}


def toy_command(workdir):
    return command("train", config=__file__, workdir=workdir, **OVERRIDES)


@pytest.mark.long
def test_it_trains_on_a_mesh_and_resumes_to_the_last_bit(tmp_path):
    done = run(toy_command(tmp_path / "straight"), devices=8)
    assert done.returncode == 0, done.stderr
    straight = rows_of(tmp_path / "straight")
    assert straight[-1]["eval_loss"] < straight[0]["loss"]
    process, log = start(toy_command(tmp_path / "killed"), devices=8), tmp_path / "killed" / "metrics.jsonl"
    while process.poll() is None and (not log.exists() or log.read_text().count("\n") < 12):
        pass
    process.send_signal(signal.SIGKILL)
    assert finish(process).returncode == -9
    done = run(toy_command(tmp_path / "killed"), devices=8)
    assert done.returncode == 0, done.stderr
    for name in ("loss", "spread", "eval_loss", "eval_loss_average"):
        kept = [[row[name] for row in rows if name in row] for rows in (straight, rows_of(tmp_path / "killed"))]
        assert kept[0] == kept[1]


def some_steps(mesh, steps=3):
    t = train_step(mesh, model=halves(small())["model"], objective=Toy(), ema_decay=0.5)
    state, rows = t.init(), []
    for step in range(steps):
        state, metrics = t.step(state, on(t, image=images(step), image_1=images(step + 1)))
        rows.append([float(metrics[name]) for name in ("loss", "spread", "grad_norm")])
    weight = np.ones(BATCH, np.float32)
    beside = {"target": state.extra["target"]}
    batch = on(t, image=images(9), image_1=images(8), index=np.arange(BATCH), weight=weight)
    return t, state, np.array(rows), float(t.evaluate(state.params, beside, batch)["loss"])


@pytest.mark.long
def test_its_auxiliary_tree_is_split_like_what_it_follows_and_the_mesh_changes_nothing():
    _, _, alone, held_out = some_steps((1, 1, 1))
    t, state, rows, same = some_steps(MESHES["fsdp 4, tensor 2"])
    np.testing.assert_allclose(rows, alone, rtol=2e-5)
    assert same == pytest.approx(held_out, rel=2e-5)
    assert set(state.extra) == {"target", "average"}
    assert t.shardings.extra["target"] == t.shardings.params["encoder"]


def test_a_loss_of_the_whole_batch_is_not_divided():
    with pytest.raises(UserError, match=r"accumulate=2: the loss of toy needs the whole batch, .* set accumulate=1"):
        train_step(model=halves(small())["model"], objective=Toy(), accumulate=2)


def test_it_is_told_by_its_name_in_configs_and_checkpoints():
    values = config_dict(TrainConfig(objective=Toy(momentum=0.5))).to_dict()
    assert from_config_dict(TrainConfig, values).objective == Toy(momentum=0.5)
    assert stored_config(values).objective == Toy(momentum=0.5)
    with pytest.raises(UserError, match=r"objective.name='tow': must be one of mae, moco, slimmable, toy"):
        from_config_dict(TrainConfig, values | {"objective": {"name": "tow"}})
    with pytest.raises(
        UserError, match=r"objective.name='classification': must be one of mae, moco, slimmable, toy"
    ):  # needs labels
        from_config_dict(TrainConfig, values | {"objective": {"name": "classification"}})
    with pytest.raises(UserError, match=r"objective\.momentum=2"):
        TrainConfig(objective=Toy(momentum=2.0)).check()
