import pytest

from scaling.analysis import compute
from scaling.models.mae import abstract_mae
from scaling.models.variants import mae

# Encoder parameters in millions with class token, fixed positions not counted: facebookresearch/mae for B, L, H;
# google-research/big_vision without learned positions for the others; Cha et al. (2304.05215) for the parallel ones.
ENCODERS = {
    "vit_ti": 5.49,
    "vit_s": 21.59,
    "vit_b": 85.65,
    "vit_l": 303.10,
    "vit_h": 630.43,
    "vit_g": 1011.18,
    "vit_gg": 1843.01,
    "vit_b12x1": 85.65,
    "vit_l12x4": 605.26,
    "vit_h12x4": 1361.01,
    "vit_g12x4": 2418.67,
}


def describe(name, **overrides):
    c = mae(name, **overrides)
    shapes, names = abstract_mae(c)
    return c, names, shapes


@pytest.mark.parametrize(("name", "millions"), ENCODERS.items())
def test_encoder_parameters(name, millions):
    _, names, shapes = describe(name)
    assert compute.parameter_counts(names, shapes)["encoder"] / 1e6 == pytest.approx(millions, abs=1.0)


def test_exact_counts_of_the_references():
    _, names, shapes = describe("mae_vit_base")
    assert compute.parameter_counts(names, shapes)["total"] == 111_655_680  # facebookresearch/mae, transformers
    _, names, shapes = describe("vit_l12x4")
    assert compute.parameter_counts(names, shapes)["encoder"] == 605_261_824  # "605.26M" in the paper


def test_published_convention_is_the_multiply_accumulates_of_fvcore():
    """ViT-B/16 with ten bands at 224 pixels: 17.136 GMAC on the axis of arXiv 2601.22841."""
    c, names, shapes = describe("vit_b", bands=10)
    counted = compute.flops(names, shapes, compute.token_counts(c, masked=False))["published"]["encoder"]
    assert counted / 1e9 == pytest.approx(17.136, abs=5e-4)


def test_full_convention_counts_every_product_twice():
    c, names, shapes = describe("vit_b")
    tokens, d = 197, 768
    counts = compute.flops(names, shapes, compute.token_counts(c, masked=False))["full"]
    assert counts["stem"] == 2 * 196 * 768 * d
    assert counts["attention"] == 12 * (2 * tokens * 4 * d * d + 2 * 2 * tokens**2 * d)
    assert counts["mlp"] == 12 * 2 * tokens * 8 * d * d
    assert counts["norm"] == 25 * 5 * tokens * d
    assert counts["encoder"] == counts["stem"] + counts["attention"] + counts["mlp"] + counts["norm"]


def test_pretraining_encodes_the_visible_patches_and_predicts_the_masked_ones():
    c, names, shapes = describe("vit_b")
    counts = compute.flops(names, shapes, compute.token_counts(c, masked=True))["full"]
    assert counts["encoder"] / 1e9 == pytest.approx(8.65, abs=0.01)
    assert counts["decoder"] / 1e9 == pytest.approx(10.7, abs=0.1)
    assert compute.training_flops(names, shapes, c) == 3 * (counts["encoder"] + counts["decoder"])


def test_parallel_branches_cost_what_as_many_layers_cost():
    def encoder(**overrides):
        c, names, shapes = describe("vit_b", **overrides)
        counts = compute.flops(names, shapes, compute.token_counts(c, masked=True))["full"]
        return counts["attention"] + counts["mlp"]

    assert encoder(depth=3, branches=4) == encoder(depth=12)
