import dataclasses

import pytest

from scaling.compute.counting import parameter_counts
from scaling.core.errors import UserError
from scaling.models.mae import MAEConfig
from scaling.models.variants import PUBLIC, abstract_model, architecture, encoder
from tests.models.sizes import mae

# Parameters of the public implementations in millions to one decimal, and those among them that are no parameters here:
# fixed positions stored as such, the position of the class token, torchgeo's head of 45 classes. Negative where we have
# more: the biases that TerraMind lacks.
REFERENCE = {
    "dinov2_base": (86.6, 768),
    "dofa_base": (111.4, 197 * 768 + 45 * 769),
    "dofa_large": (337.2, 197 * 1024 + 45 * 1025),
    "prithvi_eo_v2_300": (303.9, 0),
    "prithvi_eo_v2_600": (631.2, 0),
    "terramind_v1_large": (305.1, -(24 * (7 * 1024 + 2 * 2730) + 1024)),
    "ssl4eo_s12_vits16_moco": (22.7, 197 * 384),
    "ssl4eo_s12_vits16_dino": (22.7, 384),
    "panopticon_vitb14": (98.1, 768),
    "copernicus_fm_base": (139.5, 197 * 768),
}


@pytest.mark.parametrize(("name", "millions", "elsewhere"), [(n, *counts) for n, counts in REFERENCE.items()])
def test_public_models_have_the_parameters_of_their_checkpoints(name, millions, elsewhere):
    shapes, names = abstract_model(architecture(name))
    ours = parameter_counts(names, shapes)
    assert ours["encoder"] == ours["total"]
    assert ours["encoder"] / 1e6 == pytest.approx(millions - elsewhere / 1e6, abs=0.06)


def test_attention_products_are_counted_where_the_code_of_a_model_multiplies_them_itself():
    counted = {name: a.explicit_attention for name, a in PUBLIC.items() if a.explicit_attention}
    assert counted == {"terramind_v1_base": ("",), "terramind_v1_large": ("",), "panopticon_vitb14": ("channel",)}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_models_take_other_bands_and_sizes(name):
    ours, c = architecture(name, bands=4, image_size=112), PUBLIC[name].config
    assert ours.config == dataclasses.replace(c, bands=4, image_size=112)
    assert ours.make_stem == PUBLIC[name].make_stem
    ours.config.check()


def test_a_plain_name_is_an_encoder_that_stands_alone_or_has_a_decoder():
    assert architecture("mae_vit_large", bands=5).config == encoder("vit_l", bands=5)
    alone, whole = encoder("vit_l", bands=5), mae("vit_l", bands=5)
    assert not isinstance(alone, MAEConfig)
    assert dataclasses.asdict(alone).items() <= dataclasses.asdict(whole).items()


def test_an_unknown_name_is_answered_with_the_names():
    with pytest.raises(UserError, match=r"unknown model 'vit_x'; the models are vit_ti, .*mae_vit_base.*dofa_base"):
        architecture("vit_x")
