"""A slimmable step is the sum of steps of separately cut networks, on any mesh, and its result is a checkpoint."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.compute.counting import step_flops, training_flops
from scaling.core.config import config_dict, from_config_dict
from scaling.core.errors import UserError
from scaling.core.rows import config_hash
from scaling.data.config import DataConfig
from scaling.encoders.loading import load_encoder
from scaling.objectives import Inputs, title
from scaling.objectives.slimmable import Slimmable
from scaling.training.config import TrainConfig
from scaling.training.optimizer import OptimizerConfig
from scaling.training.parametrization import ParametrizationConfig
from scaling.training.stored_config import stored_config
from tests.commands import command, finish_together, free_port, rows_of, start
from tests.models.sizes import halves
from tests.objectives.cut_networks import GRID, HEADS, MEAN, MODEL, OF, STD, explicit, narrow_config
from tests.objectives.resuming import resumed_to_the_last_bit
from tests.training.train_steps import BATCH, MESHES, assert_trees_equal, images, losses, on, train, train_step
from tpu.compiler import table


def doubles(tree):
    return jax.tree.map(lambda x: np.array(x, np.float64), tree)


def long(*values):
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("mode", "fields"),
    [
        ("token", {"distillation": "tokens", "decoder": True, "weights": "full"}),
        long("inner", {"distillation": "outputs", "distilled": 1.0, "weights": "width"}),
        long("heads", {}),
        long("branch", {"with_smallest": False}),
        long("heads+mlp", {"random": 0}),
    ],
)
def test_the_gradient_is_the_sum_of_those_of_separately_cut_networks(mode, fields):
    of = dataclasses.replace(OF, normalize_targets=False)  # which are float32 in any case
    same_as_explicit(Slimmable(wraps=of, mode=mode, widths=GRID, **{"random": 2, **fields}))


@pytest.mark.parametrize(
    ("mode", "fields"),
    [
        ("inner", {"distillation": "similarities", "random": 1}),
        long(
            "token",
            {"distillation": "similarities", "distilled": 1.0, "weights": "width", "widths": (0.375, 0.5, 0.75)},
        ),
        long("heads+mlp", {"weights": "full", "with_smallest": False}),
    ],
)
def test_so_is_that_of_a_contrast_whose_keys_are_those_of_the_whole_network(mode, fields):
    """With at least three channels: a norm over two has gradients of signs, which rounding changes."""
    same_as_explicit(Slimmable(**{"wraps": HEADS, "mode": mode, "widths": GRID, "random": 2, **fields}), atol=1e-11)


def same_as_explicit(c, atol=1e-14):
    with jax.enable_x64():
        objective = c.make(MODEL, Inputs(MEAN, STD, jnp.float64, 10))
        params = doubles(jax.jit(objective.init)(0))
        extra = objective.init_extra(params)
        batch = {name: x[:4] for name, x in both_views(0).items() if name in objective.abstract_batch(4)}
        inputs = jax.jit(objective.inputs)(0, jnp.int32(4), batch)
        step = jax.jit(jax.value_and_grad(objective.loss, has_aux=True))
        (loss, (_, metrics)), gradient = jax.device_get(step(params, extra, inputs))
        drawn = [float(metrics[f"width_random_{i + 1}"]) for i in range(c.random)]
        assert set(drawn) <= {0.5, 0.75}
        widths = [1.0, *c.grid[: c.with_smallest], *drawn]
        whole = c.wraps.make(MODEL, Inputs(MEAN, STD, jnp.float64, 10))
        _, given = whole.shared(params, extra, inputs)
        total, expected, sizes = explicit(c, params, objective.names, given, widths)
    assert loss == pytest.approx(total, rel=1e-12)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=atol), gradient, expected)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradient["encoder"]["blocks"]["mlp_in"]))
    labels = ["full", *(["smallest"] if c.with_smallest else []), *(f"random_{i + 1}" for i in range(c.random))]
    for label, (norm, cosine) in zip(labels, sizes, strict=True):
        assert metrics[f"grad_norm_{label}"] == pytest.approx(norm, rel=1e-9)
        assert label == "full" or metrics[f"grad_cosine_{label}"] == pytest.approx(cosine, rel=1e-9)


SANDWICH = {"widths": GRID, "random": 2}


def both_views(step):
    image = images(step)
    return {"image": image, "image_1": image[:, :, ::-1] // 4 * 3}


@functools.cache
def some_steps(c, mesh=(1, 1, 1), evaluated=True):
    """Two steps and an evaluation: the state, and the logged metrics."""
    t = train_step(mesh, model=MODEL, objective=c)
    state, rows = t.init(), []
    batches = [both_views(step) if "image_1" in t.arrays else {"image": images(step)} for step in range(3)]
    for batch in batches[:2]:
        state, metrics = t.step(state, on(t, **batch))
        rows.append({name: float(x) for name, x in metrics.items()})
    if not evaluated:
        return state, rows, {}
    held_out = {**batches[2], "weight": np.ones(BATCH, np.float32), "index": np.arange(BATCH)}
    sums = t.evaluate(state.params, t.beside(state), on(t, **held_out))
    return state, rows, {name: float(x) / BATCH for name, x in sums.items()}


@pytest.mark.long
@pytest.mark.parametrize("of", [OF, HEADS], ids=["mae", "moco"])
def test_the_full_width_alone_is_the_objective_that_is_wrapped_to_the_last_bit(of):
    alone, wrapped = some_steps(of), some_steps(Slimmable(wraps=of, random=0, with_smallest=False))
    assert_trees_equal(wrapped[0], alone[0])
    assert wrapped[1:] == alone[1:]


def same_as_alone(c, mesh, evaluated=True):
    (_, rows, held_out), (_, alone, alone_held_out) = (
        some_steps(c, m, evaluated) for m in (MESHES[mesh], MESHES["one device"])
    )
    assert rows[0].keys() == alone[0].keys()
    assert [row["width_random_1"] for row in rows] == [row["width_random_1"] for row in alone]
    for found, expected in [*zip(rows, alone, strict=True), (held_out, alone_held_out)]:
        for name, value in expected.items():
            rtol = 1e-5 if "loss" in name else 5e-3
            assert found[name] == pytest.approx(value, rel=rtol, abs=1e-6), name


def test_the_mesh_changes_nothing():
    c = Slimmable(wraps=OF, distillation="tokens", with_smallest=False, widths=GRID, random=1)
    same_as_alone(c, "fsdp 4, tensor 2", evaluated=False)


@pytest.mark.long
@pytest.mark.parametrize("mesh", [name for name in MESHES if name != "one device"])
@pytest.mark.parametrize("of", [OF, HEADS], ids=["mae", "moco"])
def test_no_mesh_changes_anything(of, mesh):
    """At token widths from four on: float32 cannot tell the gradients of a norm over two channels, which are signs."""
    kind = "outputs" if of is OF else "similarities"
    widths = (0.5, 0.625, 0.75)
    same_as_alone(Slimmable(wraps=of, mode="token", distillation=kind, widths=widths, random=2), mesh)


@pytest.mark.long
def test_microbatches_have_the_widths_of_their_step_and_change_nothing():
    c = Slimmable(wraps=OF, **SANDWICH)
    parts = [train(train_step(model=MODEL, objective=c, accumulate=n), 3)[1] for n in (1, 2)]
    np.testing.assert_allclose(losses(parts[1]), losses(parts[0]), rtol=1e-5)


@pytest.mark.long
def test_narrower_networks_start_when_they_are_to():
    """Among ten steps the first five train the full width alone."""
    c = Slimmable(wraps=OF, slow_start=0.5, **SANDWICH)
    objective, plain = c.make(MODEL, Inputs(MEAN, STD, steps=10)), OF.make(MODEL, Inputs(MEAN, STD, steps=10))
    params = jax.jit(objective.init)(0)
    gradient = [jax.jit(jax.value_and_grad(o.loss, has_aux=True)) for o in (objective, plain)]
    before, after = (objective.inputs(0, jnp.int32(step), {"image": images(0)}) for step in (4, 5))
    (loss, (_, metrics)), g = gradient[0](params, {}, before)
    (expected, _), h = gradient[1](params, {}, before)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), g, h)
    assert metrics["grad_norm_smallest"] == metrics["width_random_1"] == 0
    (loss, (_, metrics)), _ = gradient[0](params, {}, after)
    assert loss > 3 * expected
    assert metrics["grad_norm_smallest"] > 0


def test_widths_are_drawn_by_seed_and_step_alone():
    objective = Slimmable(wraps=OF, number=5, random=3).make(MODEL, Inputs(MEAN, STD))
    batch = {"image": images(0)}
    draw = jax.jit(lambda seed, step: objective.inputs(seed, step, batch)["widths_drawn"])
    seen = np.array([[draw(seed, jnp.int32(step)) for step in range(100)] for seed in (0, 1)])  # [2, 100, B, 3]
    assert (seen == seen[:, :, :1]).all()
    seen = seen[:, :, 0]
    assert set(seen.ravel()) == {0, 1, 2}  # of five widths, three lie between the smallest and the full one
    assert np.bincount(seen.ravel()).min() > 160  # of 600, 200 each
    assert (seen[0] != seen[1]).any(1).mean() > 0.9
    np.testing.assert_array_equal(draw(1, jnp.int32(7))[0], seen[1, 7])


RUN = TrainConfig(
    steps=4, batch_size=16, checkpoint_every=2, log_every=1, eval_every=4,
    model=MODEL, objective=Slimmable(wraps=OF, mode="token", **SANDWICH),
    data=DataConfig(source="scenes?size=16&count=128", threads=2),
    optimizer=OptimizerConfig(base_lr=0.02, warmup=1),
)  # fmt: skip


NAMES = {"loss", "loss_smallest", "grad_cosine_random_2", "eval_loss", "eval_loss_smallest", "eval_loss_middle"}


@pytest.mark.long
def test_a_run_resumes_to_the_last_bit_and_leaves_a_checkpoint_like_any_other(tmp_path):
    resumed_to_the_last_bit(RUN, tmp_path, NAMES)
    encoder = load_encoder(tmp_path / "a", width_ratio=0.5, mode="token")
    assert encoder.objective == "slimmable mae"
    assert stored_config(config_dict(RUN).to_dict()) == RUN
    assert encoder.features(np.zeros((2, 16, 16, 3), np.float32)).shape == (2, 4)


def get_config():  # this file is a config file too
    return config_dict(RUN)


@pytest.mark.long
def test_two_processes_train_what_one_does(tmp_path):
    flags = {"config": __file__, "config.objective.mode": "inner", "config.mesh.min_shard_elements": 0}
    run = functools.partial(command, "train", **flags)
    finish_together([start(run(workdir=tmp_path / "one"))])
    together = {"coordinator": f"localhost:{free_port()}", "processes": 2, "workdir": tmp_path / "two"}
    finish_together([start(run(**together, process=k), devices=4) for k in range(2)])
    one, two = (rows_of(tmp_path / name) for name in ("one", "two"))
    for name in ("loss", "loss_smallest", "loss_full", "eval_loss", "eval_loss_smallest", "eval_loss_middle"):
        values = [[row[name] for row in rows if name in row] for rows in (one, two)]
        np.testing.assert_allclose(values[1], values[0], rtol=1e-5)
    assert [row["width_random_1"] for row in one] == [row["width_random_1"] for row in two]


@pytest.mark.long
def test_a_contrast_resumes_to_the_last_bit(tmp_path):
    c = Slimmable(wraps=HEADS, distillation="similarities", **SANDWICH)
    run = dataclasses.replace(RUN, objective=c, data=dataclasses.replace(RUN.data, photometric="byol"))
    resumed_to_the_last_bit(run, tmp_path, NAMES)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"smallest": 0.0}, r"objective\.smallest=0: must be above 0 and at most 1"),
        ({"widths": (0.5, 1.5)}, r"objective\.widths=1\.5: must be above 0"),
        (
            {"smallest": 1.0},
            r"objective\.widths=1: all are the full width .* has 4 head_dim, 8 mlp; choose smaller ones",
        ),
        ({"mode": "branch", "model": {"branches": 1}}, r"objective\.mode=branch: the network has one branch"),
        ({"mode": "depth"}, r"objective\.mode=depth: unknown slimming mode"),
        ({"widths": (0.5,)}, r"objective\.random=3: none of the widths 0\.5 and 1 is between"),
        ({"mode": "heads", "widths": (0.01, 0.3)}, r"objective\.random=3: none of the widths 0\.01 and 1 is between"),
        ({"number": 1}, r"objective\.number=1: must be at least 2"),
        ({"random": -1}, r"objective\.random=-1: must be at least 0"),
        (
            {"distillation": "similarities"},
            r"objective\.distillation=similarities: must be one of none, tokens, outputs",
        ),
        ({"distillation": "tokens", "random": 0, "with_smallest": False}, r"no narrower network is trained"),
        ({"weights": "size"}, r"objective\.weights=size: must be one of equal, width, full"),
        ({"slow_start": 1.0}, r"objective\.slow_start=1\.0: must be in"),
        ({"decoder": True, "wraps": HEADS}, r"objective\.decoder=True: moco has none with head_dim, mlp; leave it out"),
        ({"wraps": dataclasses.replace(OF, mask_ratio=1.0)}, r"^objective\.wraps\.mask_ratio=1\.0 leaves 0 of 16"),
        ({"wraps": Slimmable()}, r"objective\.wraps\.name=slimmable: cannot be cut, because"),
    ],
)
def test_wrong_input_is_named(fields, message):
    fields = dict(fields)
    model = dataclasses.replace(MODEL, **fields.pop("model", {}))
    with pytest.raises(UserError, match=message):
        TrainConfig(model=model, objective=Slimmable(**{"wraps": OF, **fields})).check()


@pytest.mark.parametrize(
    ("name", "kind", "times"), [("slimmable_ti8", "mae", 3.355), ("slimmable_moco_ti8", "moco", 2.369)]
)
def test_shipped_configs_are_those_of_what_they_wrap(name, kind, times):
    plain = table.load({"mae": "hurricane_ti8.py", "moco": "moco_ti8.py"}[kind])
    c = table.load(f"{name}.py")
    c.check()
    assert dataclasses.replace(c, objective=c.objective.wraps) == plain
    assert [cut.width for cut in c.objective.cuts(c.model)] == [i / 8 for i in range(1, 8)]
    shapes, names = c.objective.abstract(c.model)
    found, once = (training_flops(names, shapes, x.objective.tokens(x.model)) for x in (c, plain))
    assert found / once == pytest.approx(times, abs=1e-3)


def test_operations_are_those_of_every_width_on_average():
    c = Slimmable(wraps=OF, widths=GRID, random=3, decoder=True)
    shapes, names = c.abstract(MODEL)
    found = step_flops(names, shapes, c.tokens(MODEL))["full"]
    times = {1.0: 1, 0.25: 1, 0.5: 1.5, 0.75: 1.5}
    for part in ("attention", "mlp", "stem", "decoder"):
        expected = 0.0
        for width, often in times.items():
            config = c.wraps.with_encoder(MODEL) if width == 1 else narrow_config(c, "inner", width)[0]
            own = halves(config)
            small, labels = own["objective"].abstract(own["model"])
            expected += often * step_flops(labels, small, own["objective"].tokens(own["model"]))["full"][part]
        assert found[part] == pytest.approx(expected, abs=5)
    whole = training_flops(names, shapes, c.tokens(MODEL))
    late = training_flops(names, shapes, dataclasses.replace(c, slow_start=0.5).tokens(MODEL))
    alone = training_flops(names, shapes, OF.tokens(MODEL))
    assert late == pytest.approx((whole + alone) / 2, abs=10)
    phases = dataclasses.replace(c, slow_start=0.5).phases(MODEL)
    assert [(share, training_flops(names, shapes, tokens)) for share, tokens in phases] == [(0.0, alone), (0.5, whole)]
    assert c.tokens(MODEL, whole=True).narrower == ()


def test_the_keys_of_a_contrast_are_made_once():
    c = Slimmable(wraps=HEADS, widths=GRID, random=2)
    shapes, names = c.abstract(MODEL)
    found, plain = (step_flops(names, shapes, o.tokens(MODEL))["full"] for o in (c, HEADS))
    projector = 2 * (8 * 12 + 12 * 12 + 12 * 6)  # of one view
    assert plain["projector"] == 8 * projector
    assert found["projector"] == 8 * projector + 3 * 6 * projector  # two views forward and backward, at three widths
    assert found["stem"] == 4 * plain["stem"] - 3 * plain["stem"] // 2  # frozen: no narrower keys


def test_a_configuration_is_read_by_the_names_of_both():
    c = Slimmable(wraps=HEADS, widths=(0.1, 0.5), distillation="similarities")
    values = config_dict(TrainConfig(model=MODEL, objective=c)).to_dict()
    assert from_config_dict(TrainConfig, values).objective == c
    assert title(c) == "slimmable moco"
    values["objective"]["wraps"] = {"name": "moca"}
    with pytest.raises(UserError, match=r"objective\.wraps\.name='moca': must be one of mae, moco, slimmable"):
        from_config_dict(TrainConfig, values)
    assert config_hash(values) != config_hash(config_dict(TrainConfig(model=MODEL)).to_dict())


def test_a_parametrization_reaches_what_is_wrapped():
    c = ParametrizationConfig("mup", width=4, heads=2, mlp=4, decoder_width=4, decoder_heads=1)
    model, objective = c.resolve(MODEL, Slimmable(wraps=OF))
    plain = c.resolve(MODEL, OF)
    assert (model, objective.wraps) == plain
    assert c.base(MODEL, Slimmable(wraps=OF))[1].wraps == c.base(MODEL, OF)[1]
    set_by_hand = dataclasses.replace(OF, decoder_attention_scale=0.123)
    with pytest.raises(UserError, match=r"objective\.wraps\.decoder_attention_scale follows from parametrization"):
        c.check(MODEL, Slimmable(wraps=set_by_hand))
