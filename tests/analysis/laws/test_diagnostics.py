"""Diagnostics of a fit: comparison with other forms, and prediction of the larger rows from the smaller ones."""

import dataclasses

import numpy as np
import pytest

from scaling.analysis.laws.diagnostics import (
    against_simpler,
    aicc,
    doubts,
    extrapolation_error,
    not_believed,
    residuals,
)
from scaling.analysis.laws.fitting import fit
from tests.analysis.laws.examples import losses


def test_a_law_with_an_offset_beats_the_one_without_only_where_there_is_one():
    x, y = losses("power", noise=0.001)
    assert aicc(fit("line", x, y), x, y) > aicc(fit("power", x, y), x, y) + 10
    x, y = losses("line", noise=0.001)
    assert aicc(fit("line", x, y), x, y) < aicc(fit("power", x, y), x, y) + 1


def test_of_two_inputs_the_rows_with_the_largest_product_are_held_out():
    x, y = losses("chinchilla")
    found = extrapolation_error("chinchilla", x, y)
    assert found["rows"] == (x.prod(1) >= found["from_below"] * (1 - 1e-9)).sum() == 21
    assert found["rms_log_error"] < 1e-6


NO_TREND = "a constant describes the rows as well as this law: they show no trend"


def test_rows_that_show_no_trend_are_told_from_those_of_which_one_went_wrong():
    x, y = losses("line", noise=0.01)
    noise = np.exp(0.1 * np.random.default_rng(0).normal(size=len(x)))
    wrong = np.where(np.arange(len(x)) == 3, 1e4 * y, y)
    said = {}
    for name, values in (("right", y), ("one wrong", wrong), ("noise", noise)):
        fitted = fit("line", x, values)
        said[name] = NO_TREND in doubts(fitted, x, values, residuals(fitted, x, values))
    assert said == {"right": False, "one wrong": False, "noise": True}


def test_constants_are_not_believed_that_are_open_or_of_no_known_law():
    fitted = fit("line", *losses("line", noise=0.01))
    log_a, b = fitted.theta  # a in units where x and y have mean 1

    def drawn(*exponents):
        return np.array([[log_a, exponent] for exponent in exponents for _ in range(50)])

    assert not_believed(fitted, drawn(b - 0.1, b + 0.1)) == []
    assert not_believed(fitted, drawn(b - 0.1, b + 4)) == [
        "a may be anything: the 95 % interval spans more than 20 orders of magnitude"
    ]
    assert not_believed(fitted, drawn(b - 0.5, b + 0.1)) == [
        "the 95 % interval of b holds 0: the rows do not tell whether the law falls or rises along it"
    ]
    for exponent in (20.0, -20.0):
        steep = dataclasses.replace(fitted, theta=np.array([log_a, exponent]))
        same = np.repeat(steep.theta[None], 3, 0)
        assert not_believed(steep, same) == [f"b = {exponent:g}: no law is known to be so steep; it is not to be used"]
        assert not_believed(steep, same, known=("a", "b")) == []  # said already


@pytest.mark.parametrize(
    ("form", "simpler"),
    [
        ("power", ["line"]),
        pytest.param("chinchilla", ["two_powers"], marks=pytest.mark.long),
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
    found = extrapolation_error("power", *losses("power"))
    assert found["rows"] == 4
    assert found["rms_log_error"] < 1e-6
    x, y = losses("power")
    y = np.where(x > 3e8, 1.1 * y, y)  # what is large does not follow the law
    assert extrapolation_error("power", x, y)["mean_log_error"] == pytest.approx(-np.log(1.1), abs=0.03)
