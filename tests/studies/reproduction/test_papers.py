"""The setup of a paper agrees with the tables of models, weights and published rows."""

import pytest

from scaling.core.errors import UserError
from scaling.interop.families import FAMILIES
from scaling.interop.published import published
from scaling.models.variants import PUBLIC
from scaling.studies.reproduction.papers import PAPERS, SENTINEL2, paper_of
from scaling.studies.reproduction.parts import stand_ins

PAPER = PAPERS["hackel2026"]


def test_its_models_are_those_of_its_rows_with_the_bands_of_its_axis():
    rows = [row for row in PAPER.published() if row.probe == "knn"]
    assert {row.model for row in rows} == {model.name for model in PAPER.models}
    assert {row.dataset for row in rows} == set(PAPER.datasets)
    assert len(rows) == 10 * 4 * 6
    for model in PAPER.models:
        assert PUBLIC[model.name].config.bands == len(model.bands)
        family = FAMILIES[model.family or published(model.weights).family]
        assert not family.bands or set(model.bands) <= set(family.bands)
        assert set(model.bands) <= set(SENTINEL2)


# m-bigearthnet, m-brick-kiln with its bands as they are, m-so2sat
SETS = {
    "": tuple(band for band in SENTINEL2 if band != "B10"),
    "m-brick-kiln": ("B01", "B02", "B03", "B04", "B05", "B07", "B8A", "B08", "B11", "B12", "TCI_R", "TCI_G", "TCI_B"),
    "m-so2sat": ("01 - VH.Real", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"),
}


@pytest.mark.parametrize(
    ("there", "wanted", "taken"),
    [
        ("", "B10", "B11"), ("m-so2sat", "B01", "B02"), ("m-so2sat", "B09", "B8A"),  # as Galileo's evaluations do
        ("m-brick-kiln", "B06", "B05"), ("m-so2sat", "B04", "B04"),
    ],
)  # fmt: skip
def test_the_nearest_band_stands_for_one_that_is_not_there(there, wanted, taken):
    assert stand_ins([wanted], SETS[there], "x", "nearest") == (taken,)


def test_a_band_that_is_not_there_is_named_unless_another_may_stand_for_it():
    with pytest.raises(UserError, match="x has no B10; --fill=nearest uses"):
        stand_ins(["B11", "B10"], SETS[""], "x", "none")
    with pytest.raises(UserError, match=r"x has no NDVI$"):
        stand_ins(["NDVI"], SETS[""], "x", "nearest")
    with pytest.raises(UserError, match="x has bands that the encoder has no names for"):
        stand_ins([], SETS[""], "x", "nearest")


def test_the_papers_are_listed_once():
    with pytest.raises(UserError) as caught:
        paper_of("zzz")
    assert str(caught.value) == f"--paper=zzz: its numbers are not included; give one of {', '.join(PAPERS)}"
