"""Sizes of the mesh axes, and how batches divide over them."""

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.core.errors import UserError
from scaling.parallel.mesh import MESH_AXES, MeshConfig, batch_sharding, check_batch, make_mesh, mesh_shape, widest_fsdp


@pytest.mark.parametrize(
    ("sizes", "devices", "shape"),
    [
        ({}, 1, (1, 1, 1)),
        ({}, 8, (1, 8, 1)),
        ({"tensor": 2}, 8, (1, 4, 2)),
        ({"replica": -1, "fsdp": 4}, 8, (2, 4, 1)),
        ({"replica": 2, "fsdp": 2, "tensor": -1}, 8, (2, 2, 2)),
        ({"replica": 2, "fsdp": 4, "tensor": 1}, 8, (2, 4, 1)),
        ({"max_fsdp": 4}, 16, (4, 4, 1)),
        ({"max_fsdp": 4, "replica": 2, "tensor": 2}, 24, (4, 3, 2)),
        ({"max_fsdp": 4, "fsdp": 8}, 8, (1, 8, 1)),
        ({"max_fsdp": 64}, 1, (1, 1, 1)),
    ],
)
def test_minus_one_takes_the_devices_that_are_left(sizes, devices, shape):
    assert mesh_shape(MeshConfig(**sizes), devices) == shape


@given(st.tuples(*[st.sampled_from([-1, 1, 2, 3, 4, 8])] * 3), st.integers(1, 64))
def test_a_resolved_mesh_uses_every_device_and_keeps_the_sizes_asked_for(sizes, devices):
    try:
        shape = mesh_shape(MeshConfig(*sizes), devices)
    except UserError:
        return
    assert shape[0] * shape[1] * shape[2] == devices
    assert all(got == size for got, size in zip(shape, sizes, strict=True) if size != -1)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"fsdp": 3}, r"mesh\.fsdp=3.* must multiply to the 8 devices"),
        ({"fsdp": 4}, r"must multiply to the 8 devices"),
        ({"tensor": 16}, r"mesh\.tensor=16 must multiply to the 8 devices"),
        ({"replica": -1}, r"mesh\.replica=-1, mesh\.fsdp=-1.*except that one may be -1"),
        ({"fsdp": 0}, r"mesh\.fsdp=0.*sizes must be positive"),
        ({"tensor": -2}, r"mesh\.tensor=-2: sizes must be positive"),
    ],
)
def test_sizes_that_do_not_fit_the_devices_are_refused(sizes, message):
    with pytest.raises(UserError, match=message):
        mesh_shape(MeshConfig(**sizes), 8)


@given(st.integers(1, 1024), st.integers(1, 256))
def test_devices_beyond_the_widest_fsdp_become_replicas(devices, most):
    replica, fsdp, _ = mesh_shape(MeshConfig(max_fsdp=most), devices)
    assert replica * fsdp == devices
    assert fsdp <= most
    assert not any(devices % n == 0 for n in range(fsdp + 1, most + 1))


@pytest.mark.parametrize(
    ("width", "fsdp"),
    [(768, 16), (1024, 32), (1280, 32), (1664, 32), (2048, 64), (4096, 128), (6144, 128), (100, 2), (16, 1)],
)
def test_parts_of_a_width_have_at_least_32_rows(width, fsdp):
    assert widest_fsdp(width) == fsdp


def test_the_mesh_has_the_three_axes_on_any_number_of_devices():
    for count in (1, 8):
        mesh = make_mesh(MeshConfig(), jax.devices()[:count])
        assert dict(mesh.shape) == dict(zip(MESH_AXES, (1, count, 1), strict=True))


def test_images_are_split_over_everything_but_tensor():
    sharding = batch_sharding(make_mesh(MeshConfig(replica=2, fsdp=2, tensor=2)))
    assert sharding.shard_shape((16, 4, 4, 3)) == (4, 4, 4, 3)


def test_a_batch_that_does_not_divide_names_the_nearest_that_does():
    mesh = make_mesh(MeshConfig(replica=2, fsdp=2, tensor=2))
    check_batch(16, mesh.devices.shape, accumulate=4)
    with pytest.raises(UserError, match=r"batch_size=30 is not divisible by .* = 2 x 2 x 4; the nearest that is: 32"):
        check_batch(30, mesh.devices.shape, accumulate=4)
