"""The compute axis of arXiv 2601.22841: its published values, and its rule written a second time."""

import json
from fractions import Fraction
from math import floor
from pathlib import Path

import pytest

from scaling.compute.width_axis import read_reference, width_axis
from scaling.core.errors import UserError
from scaling.models.variants import PUBLIC, architecture
from scaling.slimming.widths import PUBLISHED_WIDTHS

# Read from the curves of the paper's project page, at the widths of its tables; four decimals.
PUBLISHED = Path(__file__).with_name("published_axis.json")
OVERRIDES = {"vit_b": {"bands": 10}}  # the paper's own ViT-B

B, L, H, S = (768, 12, 12, 64, 3072), (1024, 24, 16, 64, 4096), (1280, 32, 16, 80, 5120), (384, 12, 6, 64, 1536)
# width, depth, heads, head_dim, mlp; matrices of the MLP; patches, tokens; whether attention products are counted
BLOCKS = {
    "vit_b": (*B, 2, 196, 197, False),
    "mae_vit_base": (*B, 2, 196, 197, False),
    "mae_vit_large": (*L, 2, 196, 197, False),
    "mae_vit_huge": (*H, 2, 256, 257, False),
    "dinov2_base": (*B, 2, 37**2, 37**2 + 1, False),
    "dofa_base": (*B, 2, 196, 197, False),
    "dofa_large": (*L, 2, 196, 197, False),
    "prithvi_eo_v2_300": (*L, 2, 196, 197, False),
    "prithvi_eo_v2_600": (*H, 2, 256, 257, False),
    "terramind_v1_base": (*B[:4], 2048, 3, 196, 196, True),
    "terramind_v1_large": (*L[:4], 2730, 3, 196, 196, True),
    "ssl4eo_s12_vits16_moco": (*S, 2, 196, 197, False),
    "ssl4eo_s12_vits16_dino": (*S, 2, 196, 197, False),
    "panopticon_vitb14": (*B, 2, 256, 257, False),
    "copernicus_fm_base": (*B, 2, 196, 197, False),
}
BANDS = {"dofa": 10, "prithvi": 6, "terramind": 12, "ssl4eo": 13, "panopticon": 13, "copernicus": 13, "vit": 10}


def generator(bands, patch_values, d):
    """Products and norms of the network that makes the kernels of DOFA and Copernicus-FM, and its attention products:
    a residual MLP, one transformer layer over 128 tokens, the bands and one token more, and two linear maps."""
    sequence = 128 + bands + 1
    layer = 4 * 128 * 128 + 2 * 128 * 2048
    products = bands * 2 * 128 * 128 + sequence * layer + bands * 128 * patch_values * d + 128 * d
    return products, 2 * sequence * 5 * 128, 2 * sequence**2 * 128


def stem(name, d, patches):
    """Products, norms, and attention products that only `full` counts."""
    bands = next((n for key, n in BANDS.items() if name.startswith(key)), 3)
    size = 14 if patches in (256, 37**2) else 16
    products, norms, hidden = patches * bands * size**2 * d, 0, 0
    if name.startswith("panopticon"):
        channels = patches * bands
        return channels * (size**2 * 2304 + 2 * 2304**2 + 2 * 2304) + patches * 2304 * d, 0, 0
    if name.startswith(("dofa", "copernicus")):
        more, norms, hidden = generator(bands, size**2, d)
        products += more
    if name.startswith("copernicus"):
        products += 3 * d**2  # place, area and time of the image
    return products, norms, hidden


def closed_formula(name, width):
    """MACs(s) = E + L (4 N d a + m N d h + 2 N^2 a) + 5 N d (2 L + 1) of both conventions."""
    d, depth, heads, head_dim, mlp, matrices, patches, n, counted = BLOCKS[name]

    def kept(size):
        return max(1, floor(Fraction(str(width)) * size))

    a, h = heads * kept(head_dim), kept(mlp)
    products, norms, hidden = stem(name, d, patches)
    products += depth * (4 * n * d * a + matrices * n * d * h)
    norms += 5 * n * d * (2 * depth + 1)
    attention = depth * 2 * n**2 * a
    return {
        "published": products + norms + attention * counted,
        "full": 2 * (products + attention + hidden) + norms,
    }


@pytest.mark.parametrize("name", json.loads(PUBLISHED.read_text()))
def test_published_values(name):
    reference = read_reference(PUBLISHED, name)
    rows = width_axis(architecture(name, **OVERRIDES.get(name, {})), tuple(reference))
    assert [row["compute"]["published"] for row in rows] == pytest.approx(list(reference.values()), abs=2e-4)


@pytest.mark.parametrize("name", BLOCKS)
def test_both_conventions_are_the_closed_formula_at_all_published_widths(name):
    rows = width_axis(architecture(name, **OVERRIDES.get(name, {})), PUBLISHED_WIDTHS)
    assert [row["s"] for row in rows] == list(PUBLISHED_WIDTHS)
    for convention in ("published", "full"):
        expected = [
            closed_formula(name, s)[convention] / closed_formula(name, 1.0)[convention] for s in PUBLISHED_WIDTHS
        ]
        assert [row["compute"][convention] for row in rows] == pytest.approx(expected, rel=1e-12)


def test_every_public_model_is_checked():
    assert set(PUBLIC) < set(BLOCKS)


def test_the_curves_of_the_computer_vision_models_have_the_axis_of_the_ten_band_model():
    """In the paper; with the bands that these models have, the smallest budget is half of that."""
    own, paper = (
        width_axis(architecture("mae_vit_base", bands=n), [0.001])[0]["compute"]["published"] for n in (3, 10)
    )
    assert paper == pytest.approx(0.0293, abs=2e-4)
    assert own == pytest.approx(0.0137, abs=5e-4)


def test_a_reference_stands_beside_the_widths_that_it_has():
    rows = width_axis(architecture("vit_ti"), [0.5, 1.0], {1.0: 1.0, 0.1: 0.2})
    assert "reference" not in rows[0]
    assert rows[1] == {"s": 1.0, "compute": {"published": 1.0, "full": 1.0}, "reference": 1.0}


@pytest.mark.parametrize("width", [0.0, -0.5, 1.5, float("nan")])
def test_a_width_outside_of_the_unit_interval_is_refused(width):
    with pytest.raises(UserError, match=r"must be above 0 and at most 1"):
        width_axis(architecture("vit_ti"), [width])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is not JSON of the form"),
        ("[1]", "is not JSON of the form"),
        ('{"a": {"x": 1}}', "is not JSON of the form"),
        ('{"a": {"0.1": 0.2}}', "has no model 'vit_b'; it has a"),
    ],
)
def test_a_reference_that_cannot_be_used_is_refused(content, message, tmp_path):
    path = tmp_path / "reference.json"
    if content:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_reference(path, "vit_b")
