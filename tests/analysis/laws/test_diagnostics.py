"""Diagnostics of a fit: which form does better, and what the smaller rows predict of the larger ones."""

import numpy as np
import pytest

from scaling.analysis.laws.diagnostics import against_simpler, aicc, held_out
from scaling.analysis.laws.fitting import fit
from tests.analysis.laws.examples import losses

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_a_law_with_an_offset_beats_the_one_without_only_where_there_is_one():
    x, y = losses("power", noise=0.001)
    assert aicc(fit("line", x, y), x, y) > aicc(fit("power", x, y), x, y) + 10
    x, y = losses("line", noise=0.001)
    assert aicc(fit("line", x, y), x, y) < aicc(fit("power", x, y), x, y) + 1


def test_of_two_inputs_the_rows_with_the_largest_product_are_held_out():
    x, y = losses("chinchilla")
    found = held_out("chinchilla", x, y)
    assert found["rows"] == (x.prod(1) >= found["from_below"] * (1 - 1e-9)).sum() == 21
    assert found["rms_log_error"] < 1e-6


@pytest.mark.parametrize(
    ("form", "simpler"),
    [
        ("power", ["line"]),
        ("chinchilla", ["two_powers"]),
        pytest.param("saturating", ["power", "line"], marks=pytest.mark.long),
        pytest.param("kaplan", ["kaplan_one_exponent"], marks=pytest.mark.long),
        pytest.param("shape", ["chinchilla", "two_powers"], marks=pytest.mark.long),
        pytest.param("retention", ["exponential"], marks=pytest.mark.long),
    ],
)
def test_the_simpler_forms_are_worse_at_what_follows_the_form(form, simpler):
    x, y = losses(form, noise=1e-4)
    found = against_simpler(fit(form, x, y), x, y)
    assert list(found) == simpler
    assert min(found.values()) > 10


def test_the_largest_are_predicted_from_the_others():
    found = held_out("power", *losses("power"))
    assert found["rows"] == 4
    assert found["rms_log_error"] < 1e-6
    x, y = losses("power")
    y = np.where(x > 3e8, 1.1 * y, y)  # what is large does not follow the law
    assert held_out("power", x, y)["mean_log_error"] == pytest.approx(-np.log(1.1), abs=0.03)
