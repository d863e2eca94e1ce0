"""Accelerator types, and that the compiler of each chip takes its flags."""

import os
import subprocess
import sys

import pytest

from scaling.core.errors import UserError
from tpu.compiler.topology import parse
from tpu.flags import CHIPS, accelerator


@pytest.mark.parametrize(
    ("name", "chip", "chips", "hosts", "topology"),
    [
        ("v4-8", "v4", 4, 1, "2x2x1"),
        ("v4-128", "v4", 64, 16, "4x4x4"),
        ("v5litepod-1", "v5e", 1, 1, "1x1"),
        ("v5litepod-8", "v5e", 8, 1, "2x4"),
        ("v5litepod-16", "v5e", 16, 4, "4x4"),
        ("v5litepod-128", "v5e", 128, 32, "8x16"),
        ("v5litepod-256", "v5e", 256, 64, "16x16"),
        ("v5p-8", "v5p", 4, 1, "2x2x1"),
        ("v5p-32", "v5p", 16, 4, "2x2x4"),
        ("v5p-256", "v5p", 128, 32, "4x4x8"),
        ("v5p-384", "v5p", 192, 48, "4x4x12"),
        ("v5p-640", "v5p", 320, 80, "4x4x20"),
        ("v5p-1152", "v5p", 576, 144, "4x12x12"),
        ("v5p-3840", "v5p", 1920, 480, "8x12x20"),
        ("v5p-6912", "v5p", 3456, 864, "12x12x24"),
        ("v5p-12288", "v5p", 6144, 1536, "16x16x24"),
        ("v4-1536", "v4", 768, 192, "8x8x12"),
        ("v6e-256", "v6e", 256, 64, "16x16"),
        ("tpu7x-8", "tpu7x", 4, 1, "2x2x1"),
        ("tpu7x-16", "tpu7x", 8, 2, "2x2x2"),
        ("tpu7x-128", "tpu7x", 64, 16, "4x4x4"),
        ("tpu7x-12288", "tpu7x", 6144, 1536, "16x16x24"),
    ],
)
def test_what_an_accelerator_type_means(name, chip, chips, hosts, topology):
    a = accelerator(name)
    assert (a.chip, a.chips, a.hosts, a.topology) == (CHIPS[chip], chips, hosts, topology)
    place = parse(f"{chip}:{topology}")  # preflight knows it too
    assert (place.chips, place.chips * place.chip.per_chip) == (chips, a.devices)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("name", ["v4:8x8x12", "v5p:4x4x12", "v5p:16x16x24"])
def test_shapes_of_whole_cubes_are_known_to_the_compiler(name):
    assert len(parse(name).devices) == parse(name).chips


@pytest.mark.parametrize(
    "shape", ["12x4x4", "4x4x10", "2x4x8", "4x4", "16x16x28", "4x4x", "4x4x0", "4x4x4x4", "4x4x268"]
)
def test_shapes_that_are_not_offered_are_refused(shape):
    with pytest.raises(UserError, match=r"and others of whole 4x4x4 cubes, smallest side first, up to 6144 chips"):
        parse(f"v5p:{shape}")


@pytest.mark.parametrize("name", ["", "v5e-16", "v5litepod", "v5litepod-", "v5litepod-16 ", "V4-8", "v7-8"])
def test_a_generation_that_does_not_exist_is_refused(name):
    with pytest.raises(UserError, match=r"--accelerator=.*: is not known; .*v5litepod-256"):
        accelerator(name)


@pytest.mark.parametrize(
    "name",
    [
        *("v4-9", "v4-4", "v5litepod-2", "v5litepod-512", "v5p-3", "v5p-320", "v5p-12416", "v4-8320", "v6e-12"),
        *("v6e-0", "v5p-8576", "tpu7x-2", "tpu7x-12", "tpu7x-18432"),
    ],
)
def test_a_size_that_does_not_exist_is_refused_with_those_that_do(name):
    with pytest.raises(
        UserError, match=rf"--accelerator={name}: must be one of (v4-8|v5litepod-1|v5p-8|v6e-1|tpu7x-8), "
    ):
        accelerator(name)


COMPILE = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

devices = topologies.get_topology_desc(sys.argv[1], platform="tpu").devices
sharding = NamedSharding(Mesh(np.array(devices), ("x",)), P("x"))
x = jax.ShapeDtypeStruct((1024, 1024), jnp.bfloat16, sharding=sharding)
jax.jit(lambda a: jnp.sum(a @ a.T)).lower(x).compile()
print("compiled")
"""
SMALLEST = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2", "tpu7x": "tpu7x:2x2x1"}


def compiled(topology, flags):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "LIBTPU_INIT_ARGS": flags,
    }
    return subprocess.run([sys.executable, "-c", COMPILE, topology], env=environment, capture_output=True, text=True)


@pytest.mark.long
@pytest.mark.parametrize("chip", CHIPS)
def test_the_compiler_takes_the_flags_of_the_chip(chip):
    pytest.importorskip("libtpu")
    done = compiled(SMALLEST[chip], CHIPS[chip].init_args)
    assert done.stdout == "compiled\n", done.stderr


@pytest.mark.long
def test_the_compiler_refuses_a_flag_that_does_not_exist():
    pytest.importorskip("libtpu")
    done = compiled(SMALLEST["v5e"], f"{CHIPS['v5e'].init_args} --xla_tpu_no_such_flag=true")
    assert done.returncode != 0
    assert "Unknown command line flag 'xla_tpu_no_such_flag'" in done.stderr
