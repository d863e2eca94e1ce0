"""A fitted law says how sure it is, and what the rows do not support."""

import numpy as np
import pytest

from scaling.analysis.laws.allocation import allocate
from scaling.analysis.laws.fitting import fit
from scaling.analysis.laws.report import against_simpler, aicc, held_out, law
from scaling.errors import UserError
from tests.analysis.laws.examples import TRUTH, chinchilla, losses

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_the_summary_has_the_names_of_the_formula_and_ordered_intervals():
    found = law("power", *losses("power", noise=0.01), count=200).summary()
    assert set(found["parameters"]) == {"a", "b", "c"}
    assert found["formula"] == "a x^-b + c"
    for p in found["parameters"].values():
        assert p["low"] <= p["value"] <= p["high"]
    assert found["agreeing_starts"] > 0.5
    assert found["held_out"]["rms_log_error"] < 0.1


def test_a_law_with_an_offset_beats_the_one_without_only_where_there_is_one():
    x, y = losses("power", noise=0.001)
    assert aicc(fit("line", x, y), x, y) > aicc(fit("power", x, y), x, y) + 10
    x, y = losses("line", noise=0.001)
    assert aicc(fit("line", x, y), x, y) < aicc(fit("power", x, y), x, y) + 1


def test_few_points_a_short_span_and_an_open_direction_are_said():
    x = np.linspace(1.0, 2.0, 6)
    warnings = " ".join(law("power", x, 2 * x**-0.3 + 1, count=20).warnings)
    assert "6 points for 3 constants" in warnings
    assert "x spans a factor of 2.0, less than a decade: do not extrapolate" in warnings
    assert "leave a direction open" in warnings
    assert law("power", *losses("power"), count=20).warnings == ()


def test_a_law_that_rises_is_said():
    x, y = losses("line", noise=0.001)
    assert "by the law more x is no better" in law("line", x, 1 / y, count=20).warnings


@pytest.mark.long
def test_a_law_that_rises_divides_no_budget():
    x, y = losses("chinchilla")
    rising = law("chinchilla", x, 1 / y, count=20)
    assert {"by the law more N is no better", "by the law more D is no better"} <= set(rising.warnings)
    with pytest.raises(UserError, match="does not fall with both parameters and samples"):
        allocate(rising, 1e21)


@pytest.mark.long
def test_a_form_that_bends_otherwise_leaves_neighbours_on_one_side():
    x, y = losses("power", noise=0.001)
    straight, bent = law("line", x, y, count=20), law("power", x, y, count=20)
    assert straight.residuals["shared_x"] > 0.5 > bent.residuals["shared_x"]
    assert (
        "points next to each other along x lie on the same side of the law: it is not of this form" in straight.warnings
    )
    assert bent.residuals["rms"] < 0.002 < straight.residuals["rms"]


@pytest.mark.long
def test_a_form_that_fails_along_the_second_input_only_is_noticed():
    x, y = losses("chinchilla", noise=0.002)
    wrong = law("chinchilla", x, np.where(x[:, 1] > 5e11, 1.1 * y, y), count=20)
    assert wrong.residuals["shared_D"] > 0.5 > wrong.residuals["shared_N"]
    assert [w for w in wrong.warnings if "same side" in w] == [
        "points next to each other along D lie on the same side of the law: it is not of this form"
    ]
    assert not [w for w in law("chinchilla", x, y, count=20).warnings if "same side" in w]


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


def test_few_groups_are_said():
    x, y = losses("power")
    found = law("power", x, y, groups=np.arange(len(x)) % 4, count=20)
    assert found.warnings == ("4 groups are resampled: the intervals say little below 5",)


def test_the_largest_are_predicted_from_the_others():
    found = held_out("power", *losses("power"))
    assert found["rows"] == 4
    assert found["rms_log_error"] < 1e-6
    x, y = losses("power")
    y = np.where(x > 3e8, 1.1 * y, y)  # what is large does not follow the law
    assert held_out("power", x, y)["mean_log_error"] == pytest.approx(-np.log(1.1), abs=0.03)


def test_predictions_say_how_far_they_are_from_what_was_measured():
    found = law("power", *losses("power", noise=0.01), count=50)
    inside, beyond, below = found.at([1e8, 5e9, 1e5])
    truth = TRUTH["power"][0](1e8, **TRUTH["power"][2])
    assert inside.low < truth < inside.high
    assert (inside.beyond, beyond.beyond, below.beyond) == pytest.approx((1.0, 5.0, 10.0))
    assert beyond.high - beyond.low > inside.high - inside.low


def test_a_budget_is_divided_where_neither_more_parameters_nor_more_samples_would_be_better():
    inputs, values = losses("chinchilla")
    fitted = law("chinchilla", inputs, values, count=20)
    found = allocate(fitted, 1e21)
    truth = TRUTH["chinchilla"][2]
    n = np.geomspace(1e7, 1e12, 200_001)
    curve = chinchilla(np.stack([n, 1e21 / 6 / n], axis=1), **truth)
    assert found.parameters[0] == pytest.approx(n[curve.argmin()], rel=1e-3)
    assert found.parameters[0] * found.samples[0] * 6 == pytest.approx(1e21)
    assert found.loss[0] == pytest.approx(curve.min(), rel=1e-6)
    assert found.beyond == 1
    large = allocate(fitted, 1e25)
    assert large.beyond == pytest.approx(max(large.parameters[0] / 1e10, large.samples[0] / 1e12))  # of what is there
    with pytest.raises(UserError, match="by a law of the form chinchilla, not power"):
        allocate(law("power", *losses("power"), count=20), 1e21)


@pytest.mark.long
def test_what_is_left_of_a_score_is_no_power_law():
    found = law("retention", *losses("retention", noise=0.005), count=100).summary()["parameters"]
    x = np.linspace(0.01, 1, 100_000)
    exact = x[np.searchsorted(TRUTH["retention"][0](x, **TRUTH["retention"][2]), 0.9)]
    assert found["x_90"]["low"] < exact < found["x_90"]["high"]
    assert found["x_90"]["value"] == pytest.approx(exact, rel=0.05)
