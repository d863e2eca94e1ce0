import pytest

from scaling.compute import counting
from scaling.models.config import ViTConfig
from scaling.models.variants import abstract_model, architecture
from scaling.models.vit import abstract_vit
from tests.models.sizes import halves, mae

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
    """Token counts of the whole image and of pretraining, names and shapes."""
    parts = halves(mae(name, **overrides))
    c, objective = parts["model"], parts["objective"]
    shapes, names = objective.abstract(c)
    return (objective.tokens(c, whole=True), objective.tokens(c)), names, shapes


def public(name, **overrides):
    a = architecture(name, **overrides)
    shapes, names = abstract_model(a)
    return counting.image_flops(a, names, shapes)


@pytest.mark.parametrize(("name", "millions"), ENCODERS.items())
def test_encoder_parameters(name, millions):
    _, names, shapes = describe(name)
    assert counting.parameter_counts(names, shapes)["encoder"] / 1e6 == pytest.approx(millions, abs=1.0)


def test_exact_counts_of_the_references():
    _, names, shapes = describe("mae_vit_base")
    assert counting.parameter_counts(names, shapes)["total"] == 111_655_680  # facebookresearch/mae, transformers
    _, names, shapes = describe("vit_l12x4")
    assert counting.parameter_counts(names, shapes)["encoder"] == 605_261_824  # "605.26M" in the paper


@pytest.mark.parametrize(
    ("name", "overrides", "gmac"), [("vit_b", {"bands": 10}, 17.136), ("prithvi_eo_v2_300", {}, 59.850)]
)
def test_published_convention_is_the_multiply_accumulates_of_fvcore(name, overrides, gmac):
    """At 224 pixels, on the axis of arXiv 2601.22841."""
    assert public(name, **overrides)["published"]["encoder"] / 1e9 == pytest.approx(gmac, abs=5e-4)


def test_full_convention_counts_every_product_twice():
    (whole, _), names, shapes = describe("vit_b")
    tokens, d = 197, 768
    counts = counting.flops(names, shapes, whole)["full"]
    assert counts["stem"] == 2 * 196 * 768 * d
    assert counts["attention"] == 12 * (2 * tokens * 4 * d * d + 2 * 2 * tokens**2 * d)
    assert counts["mlp"] == 12 * 2 * tokens * 8 * d * d
    assert counts["norm"] == 25 * 5 * tokens * d
    assert counts["encoder"] == counts["stem"] + counts["attention"] + counts["mlp"] + counts["norm"]


def test_images_that_are_not_square_have_the_patches_of_both_sides():
    (whole, _), names, shapes = describe("vit_b", image_size=48, image_width=32)
    tokens, d = 3 * 2 + 1, 768
    counts = counting.flops(names, shapes, whole)["full"]
    assert counts["stem"] == 2 * 6 * 768 * d
    assert counts["attention"] == 12 * (2 * tokens * 4 * d * d + 2 * 2 * tokens**2 * d)
    assert counts["mlp"] == 12 * 2 * tokens * 8 * d * d


def test_windows_cost_the_products_within_them_padding_included():
    """5 x 7 patches in windows of 3: six windows, with 54 places for 35 tokens."""
    c = ViTConfig(
        image_size=20, image_width=28, patch_size=4, width=32, depth=4, heads=2, head_dim=8, mlp=48, branches=3,
        class_token=False, window=3, global_blocks=(2, 4),
    )  # fmt: skip
    shapes, names = abstract_vit(c)
    counts = counting.flops(names, shapes, counting.whole_image(c))
    kernels = {"qkv": 3 * 3 * 16 * 32, "out": 3 * 16 * 32}
    windowed = 54 * kernels["qkv"] + 35 * kernels["out"] + 3 * 2 * 54 * 9 * 16
    everywhere = 35 * (kernels["qkv"] + kernels["out"]) + 3 * 2 * 35 * 35 * 16
    assert counts["full"]["attention"] == 2 * (2 * windowed + 2 * everywhere)
    assert counts["full"]["mlp"] == 2 * 35 * 4 * 3 * 2 * 32 * 48
    published = 2 * (54 + 35) * kernels["qkv"] + 4 * 35 * kernels["out"]
    assert counts["published"]["attention"] == published


def test_pretraining_encodes_the_visible_patches_and_predicts_the_masked_ones():
    (_, masked), names, shapes = describe("vit_b")
    counts = counting.flops(names, shapes, masked)["full"]
    assert counts["encoder"] / 1e9 == pytest.approx(8.65, abs=0.01)
    assert counts["decoder"] / 1e9 == pytest.approx(10.7, abs=0.1)
    assert counting.training_flops(names, shapes, masked) == 3 * (counts["encoder"] + counts["decoder"])


def test_parallel_branches_cost_what_as_many_layers_cost():
    def encoder(**overrides):
        (_, masked), names, shapes = describe("vit_b", **overrides)
        counts = counting.flops(names, shapes, masked)["full"]
        return counts["attention"] + counts["mlp"]

    assert encoder(depth=3, branches=4) == encoder(depth=12)


def test_published_convention_counts_the_attention_products_of_explicit_code_only():
    """TerraMind multiplies queries and keys itself; a model that calls fused attention hides those products."""
    explicit, fused = public("terramind_v1_base"), public("prithvi_eo_v2_300")
    kernels, products = 12 * 196 * 4 * 768**2, 12 * 2 * 196**2 * 768
    assert explicit["published"]["attention"] == kernels + products
    assert explicit["full"]["attention"] == 2 * (kernels + products)
    kernels, products = 24 * 197 * 4 * 1024**2, 24 * 2 * 197**2 * 1024
    assert fused["published"]["attention"] == kernels
    assert fused["full"]["attention"] == 2 * (kernels + products)


def test_one_query_per_patch_meets_the_channels_of_that_patch():
    """Panopticon: every band is embedded, becomes key and value, and is met by one query; then one matrix per patch."""
    bands, patches, width = 5, 256, 2304
    per_band = 14**2 * width + 2 * width**2 + 2 * width
    counts = public("panopticon_vitb14", bands=bands)
    assert counts["published"]["stem"] == patches * (bands * per_band + width * 768)
    assert counts["full"]["stem"] == 2 * counts["published"]["stem"]


def test_kernels_that_a_network_makes_cost_their_making_and_their_use():
    """DOFA: each further band adds one sequence element, one generated kernel, and that kernel on every patch."""
    bands = {n: public("dofa_base", bands=n)["published"]["stem"] for n in (4, 5)}
    layer = 4 * 128**2 + 2 * 128 * 2048 + 2 * 5 * 128
    assert bands[5] - bands[4] == 2 * 128**2 + layer + 128 * 256 * 768 + 196 * 256 * 768


def test_parameters_that_an_image_does_not_use_cost_nothing():
    """Copernicus-FM holds a second generator, for variables without a wavelength; optical bands do not pass it."""
    copernicus, dofa = public("copernicus_fm_base"), public("dofa_base", bands=13)
    assert copernicus["published"]["stem"] - dofa["published"]["stem"] == 3 * 768**2
