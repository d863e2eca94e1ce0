"""The benchmark for GPUs at tiny sizes: it measures what it claims, on the model that is trained."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.models.config import encoder_config
from scaling.parallel.mesh import MeshConfig, batch_sharding, make_mesh
from scaling.training.config import StepConfig
from scaling.training.optimizer import OptimizerConfig
from scaling.training.step import TrainStep
from tests.bench import gpu, gpu_slim, gpu_train, turns
from tests.models.sizes import halves

BATCH = 4
CONFIG = gpu_train.config("vit_l", tiny=True, fields={})


def pixels(c, batch=BATCH):
    return np.random.default_rng(0).standard_normal((batch, c.image_size, c.image_size, c.bands), dtype=np.float32)


def first_state(c):
    params = gpu_train.first_params(c)
    return jnp.zeros((), jnp.int32), params, gpu_train.optimizer_of(c).init(params)


@pytest.mark.long
def test_the_step_is_the_one_that_training_compiles():
    c, mesh_config = dataclasses.replace(CONFIG, depth=1), MeshConfig()
    mesh = make_mesh(mesh_config, jax.devices()[:1])
    optimizer = OptimizerConfig(base_lr=gpu_train.LR * 256 / BATCH)
    nothing = ((0.0,) * 3, (1.0,) * 3)  # mean and deviation
    long = 10**6  # steps, of which the first two have the same learning rate
    config = StepConfig(*halves(c).values(), optimizer, mesh_config, gpu_train.SEED, long, BATCH, "float32", *nothing)
    train_step = TrainStep(config, mesh)
    theirs, data = train_step.init(), {"image": jax.device_put(pixels(c), batch_sharding(mesh))}
    params, opt_state = jax.tree.map(np.array, (theirs.params, theirs.opt_state))
    ours, step = (np.int32(0), params, opt_state), jax.jit(gpu_train.train_step(c, jnp.float32))
    for _ in range(2):
        theirs, expected = train_step.step(theirs, data)
        ours, found = step(ours, pixels(c))
        for name, value in found.items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-6, err_msg=name)


def test_rows_say_what_was_measured(monkeypatch):
    monkeypatch.setattr(gpu_train, "sides_of", lambda c, batch, compiled: {"scaling": steady(0.25)})
    monkeypatch.setattr(gpu_train, "alternate", lambda sides, repeats, turn: {"scaling": [0.25, 0.2, 0.3]})
    monkeypatch.setattr(gpu_train, "peak_flops", lambda kind: 1e12)
    (row,) = gpu_train.rows("mae_vit_l16", gpu_train.config("vit_l", False, {}), 256, 3, tiny=False)
    assert (row["step_seconds"], row["step_seconds_min"], row["images_per_second"]) == (0.25, 0.2, 1024)
    assert row["mfu"] == pytest.approx(1024 * row["flops_per_image"] / 1e12)
    assert row["memory_gib"] == 2
    # three forward passes: 50 tokens through 303M parameters, 197 through a decoder of 26M
    assert row["flops_per_image"] == pytest.approx(3 * 2 * (50 * 303e6 + 197 * 26e6), rel=0.1)
    assert "MFU" in gpu.text(row)


def steady(loss):
    return turns.Side(lambda: None, lambda: loss, lambda: 2**31, 1.0)


def test_a_batch_that_does_not_fit_is_halved(monkeypatch, capsys):
    def sides_of(c, batch, compiled):
        if batch > 64:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 byte")
        return {"scaling": steady(1.0)}

    monkeypatch.setattr(gpu_train, "sides_of", sides_of)
    (row,) = gpu_train.rows("mae", CONFIG, 256, 1, tiny=False)
    assert row["batch"] == 64
    assert capsys.readouterr().out == "mae: 256 images do not fit, 128 follow\nmae: 128 images do not fit, 64 follow\n"


def test_another_error_is_not_taken_for_a_batch_that_does_not_fit(monkeypatch):
    def sides_of(c, batch, compiled):
        raise RuntimeError("INVALID_ARGUMENT")

    monkeypatch.setattr(gpu_train, "sides_of", sides_of)
    with pytest.raises(RuntimeError, match="INVALID_ARGUMENT"):
        next(gpu_train.rows("mae", CONFIG, 256, 1, tiny=False))


def test_turns_wait_for_the_last_of_their_steps():
    calls = []
    sides = {name: (lambda n=name: calls.append(n), lambda n=name: calls.append(f"{n} done")) for name in "ab"}
    seconds = turns.alternate(sides, repeats=2, turn=0.0)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}
    turn = {n: [n, f"{n} done", n, n, f"{n} done"] for n in "ab"}  # one not counted, two counted
    assert calls[8:] == 2 * (turn["a"] + turn["b"])


def test_slimmed_encoders_are_cut_in_width_and_depth():
    c = dataclasses.replace(encoder_config(CONFIG), depth=4)
    params = jax.jit(lambda: gpu_slim.init_params(gpu_slim.ViT(c), 0, gpu_slim.image_input(c)))()
    whole, half = (gpu_slim.cut_encoder(c, params, *cut) for cut in ((1.0, 4), (0.5, 2)))
    assert (half.config.depth, half.config.head_dim, half.config.mlp) == (2, 8, 32)
    assert 0.2 < half.operations / whole.operations < 0.5
    assert half.program(2)().shape == (2, c.width)


def test_all_cuts_are_measured_in_width_first():
    cuts = gpu_slim.cuts(tiny=False)
    assert cuts[:6] == [(1.0, 12), (0.5, 12), (0.25, 12), (0.1, 12), (1.0, 6), (1.0, 3)]
    assert sorted(cuts) == sorted((s, depth) for s in gpu_slim.WIDTHS for depth in gpu_slim.DEPTHS)


def test_what_the_budget_has_no_room_for_is_left_out_with_a_line(capsys):
    assert list(gpu.measured(gpu.parse(["--budget=5", "--only=l,h"]))) == []
    said = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in said] == ["l: left out", "h: left out"]


# Traces all that is compiled, without the packages of data, checkpoints and figures.
ALONE = """
import sys
for name in BLOCKED:
    sys.modules[name] = None
import jax, jax.numpy as jnp
from tests.bench import gpu, gpu_slim, gpu_train
c = gpu_train.config("vit_h", True, {})
params = jax.eval_shape(lambda: gpu_train.first_params(c))
state = (jax.ShapeDtypeStruct((), jnp.int32), params, jax.eval_shape(gpu_train.optimizer_of(c).init, params))
images = jax.ShapeDtypeStruct((2, c.image_size, c.image_size, c.bands), jnp.float32)
jax.eval_shape(gpu_train.train_step(c, jnp.bfloat16), state, images)
print(gpu_train.MaskedAutoencoding.of(c).tokens(gpu_train.encoder_config(c)).encoder, len(gpu_slim.cuts(False)))
"""
BLOCKED = [
    *("absl.app", "array_record", "gcsfs", "grain", "h5py", "imagecodecs", "matplotlib", "ml_collections", "numba"),
    *("orbax", "PIL", "safetensors", "scipy", "tensorboardX", "tensorflow_datasets", "tifffile"),
]


@pytest.mark.long
def test_it_needs_jax_flax_optax_and_numpy():
    done = subprocess.run(
        [sys.executable, "-c", ALONE.replace("BLOCKED", repr(BLOCKED))], capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "5 12\n", done.stderr


@pytest.mark.long
def test_the_dry_run_writes_its_rows(tmp_path):
    file = tmp_path / "rows.jsonl"
    command = [sys.executable, "-m", "tests.bench.gpu", "--tiny", "--repeats=1", f"--json={file}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {row["bench"] for row in rows} == {"train", "slim"}
    assert all((row["device"], row["jax"], row["tiny"]) == ("cpu", jax.__version__, True) for row in rows)


@pytest.mark.parity
def test_torch_has_the_same_loss_before_and_after_an_update():
    pytest.importorskip("torch")
    from tests.bench import gpu_torch

    state = first_state(CONFIG)
    model, step = gpu_torch.loaded(CONFIG, state[1], "cpu"), jax.jit(gpu_train.train_step(CONFIG, jnp.float32))
    optimizer, images = gpu_torch.adamw(model, gpu_train.LR), pixels(CONFIG)
    for count in range(3):
        ours, theirs = gpu_train.check_losses(CONFIG, state[1], model)
        assert ours == pytest.approx(theirs, abs=1e-5)
        key = jax.random.fold_in(jax.random.key(gpu_train.SEED), count)
        noise = np.array(gpu_train.mask_noise(key, jnp.arange(BATCH), CONFIG.patches))
        state, metrics = step(state, images)
        loss = model(gpu_torch.torch.from_numpy(images), gpu_torch.torch.from_numpy(noise))
        np.testing.assert_allclose(loss.item(), metrics["loss"], atol=1e-5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_attention_by_a_kernel_that_is_not_there_is_refused_and_not_measured_as_another():
    c = gpu_train.config("vit_l", tiny=True, fields={"attention": "cudnn"})
    with pytest.raises(UserError, match=r"model\.attention=cudnn: must be supported by the backend cpu"):
        gpu_train.our_side(c, None, pixels(c))
