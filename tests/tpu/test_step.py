"""The step that is compiled for a slice, and what it sends."""

import dataclasses

import pytest

from tpu.compiler import table
from tpu.compiler.step import compiler_options, fsdp_bytes, train_step_for
from tpu.compiler.topology import parse
from tpu.flags import CHIPS


@pytest.mark.usefixtures("compiler")
def test_the_step_is_that_of_training_on_the_slice():
    train_step = train_step_for(table.load("vit_g12x4.py"), parse("v5e:16x16"))
    assert dict(train_step.mesh.shape) == {"replica": 4, "fsdp": 64, "tensor": 1}
    assert train_step.config.dtype == "bfloat16"
    assert train_step.mesh.devices.flat[0].platform == "tpu"
    kernels = 2_445_200_000 * 2  # parameters of both networks in bfloat16; biases and norms are not split
    assert fsdp_bytes(train_step) == pytest.approx(3 * kernels * 63 / 64, rel=1e-3)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(("tensor", "accumulate", "times"), [(2, 1, 0.5), (1, 2, 2.0), (2, 2, 1.0)])
def test_a_tensor_axis_halves_what_fsdp_sends_and_microbatches_repeat_it(tensor, accumulate, times):
    c, place = table.load("vit_g12x4.py"), parse("v5e:16x16")
    other = dataclasses.replace(c, accumulate=accumulate, mesh=dataclasses.replace(c.mesh, tensor=tensor))
    sent = [fsdp_bytes(train_step_for(config, place)) for config in (c, other)]
    assert sent[1] / sent[0] == pytest.approx(times, rel=2e-3)  # the input and output of the decoder are not split


def test_the_flags_are_those_of_the_launcher():
    options = compiler_options(parse("v6e:16x16"))
    assert " ".join(f"--{name}={value}" for name, value in options.items()) == CHIPS["v6e"].init_args
