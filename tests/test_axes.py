import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling import axes


@pytest.mark.parametrize(
    ("names", "kernel"),
    [
        (("layers", "embed", "branch", "qkv", "heads", "head_dim"), True),
        (("layers", "branch", "heads", "head_dim", "embed"), True),
        (("patch", "embed"), True),
        (("embed", "decoder/embed"), True),
        (("layers", "branch", "qkv", "heads", "head_dim"), False),
        (("layers", "branch", "mlp"), False),
        (("tokens", "embed"), False),
        (("embed",), False),
    ],
)
def test_a_kernel_joins_two_spaces_and_only_kernels_decay(names, kernel):
    assert axes.is_kernel(names) is kernel
    assert axes.decay_mask({"p": names}) == {"p": kernel}


def test_fans_are_those_of_the_fused_matrix_of_one_layer_and_branch():
    names = ("layers", "embed", "branch", "qkv", "heads", "head_dim")
    assert axes.fans(names, (12, 768, 4, 3, 12, 64)) == (768, 3 * 768)
    assert axes.fans(("branch", "heads", "head_dim", "embed"), (4, 12, 64, 700)) == (768, 700)
    assert axes.fans(("decoder/embed", "decoder/patch"), (512, 768)) == (512, 768)


def test_an_unknown_name_is_refused_with_the_vocabulary():
    with pytest.raises(KeyError, match=r"unknown axis .width.*embed"):
        axes.axis("width")


@given(
    st.lists(st.tuples(st.sampled_from(sorted(axes.AXES)), st.integers(1, 48)), max_size=5),
    st.fixed_dictionaries({m: st.sampled_from([1, 2, 3, 4, 8]) for m in ("replica", "fsdp", "tensor")}),
)
def test_a_partition_divides_its_dimension_and_uses_a_mesh_axis_once(dimensions, mesh):
    names, shape = tuple(n for n, _ in dimensions), tuple(s for _, s in dimensions)
    parts = axes.partition(names, shape, mesh)
    used = [m for part in parts for m in part]
    assert len(used) == len(set(used))
    assert all(mesh[m] > 1 for m in used)
    for name, size, part in zip(names, shape, parts, strict=True):
        parts_of_dimension = 1
        for m in part:
            assert m in axes.axis(name).mesh
            parts_of_dimension *= mesh[m]
        assert size % parts_of_dimension == 0


def test_letters_are_unique():
    letters = [a.letter for a in axes.AXES.values()]
    assert len(letters) == len(set(letters))
