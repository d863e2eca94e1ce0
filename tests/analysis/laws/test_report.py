"""A fitted law states its uncertainty, and the conclusions that the rows do not support."""

import numpy as np
import pytest

from scaling.analysis.laws import report
from scaling.analysis.laws.allocation import allocate
from scaling.analysis.laws.diagnostics import against_simpler
from scaling.analysis.laws.filtering import choose
from scaling.analysis.laws.intervals import interval
from scaling.analysis.laws.report import law
from scaling.analysis.laws.variation import undetermined
from scaling.core.errors import UserError
from scaling.core.rows import read_rows
from tests.analysis.laws.examples import TRUTH, chinchilla, losses
from tests.commands import ROOT

pytestmark = pytest.mark.usefixtures("full_compilation")


def test_the_summary_has_the_names_of_the_formula_and_ordered_intervals():
    found = law("power", *losses("power", noise=0.01), count=100).summary()
    assert set(found["parameters"]) == {"a", "b", "c"}
    assert found["formula"] == "a x^-b + c"
    for p in found["parameters"].values():
        assert p["low"] <= p["value"] <= p["high"]
    assert found["agreeing_starts"] > 0.5
    assert found["held_out"]["rms_log_error"] < 0.1


def test_few_points_a_short_span_and_an_open_direction_are_said():
    x = np.linspace(1.0, 2.0, 6)
    warnings = " ".join(law("power", x, 2 * x**-0.3 + 1, count=20).warnings)
    assert "6 points for 3 constants" in warnings
    assert "x spans a factor of 2.0, less than a decade: do not extrapolate" in warnings
    assert "leave a direction open" in warnings
    assert law("power", *losses("power"), count=20).warnings == ()


def test_a_law_that_rises_is_said():
    x, y = losses("line", noise=0.001)
    assert "the fitted law does not decrease with x" in law("line", x, 1 / y, count=20).warnings


@pytest.mark.long
def test_a_law_that_rises_divides_no_budget():
    x, y = losses("chinchilla")
    rising = law("chinchilla", x, 1 / y, count=20)
    assert {"the fitted law does not decrease with N", "the fitted law does not decrease with D"} <= set(
        rising.warnings
    )
    with pytest.raises(UserError, match="does not decrease in both parameters and samples"):
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


@pytest.mark.long
def test_constants_that_are_nonsense_are_said():
    rows = choose(read_rows(ROOT / "results" / "width_depth" / "width.rows.jsonl"), {}, "eval_loss")
    pooled = law("power", [row.params for row in rows], [row.value for row in rows], count=100).warnings
    assert "a may be anything: the 95 % interval spans more than 20 orders of magnitude" in pooled
    assert "b = 20.1: no law is known to be so steep; it is not to be used" in pooled
    assert "the 95 % interval of b holds 0: the rows do not tell whether the law falls or rises along it" in pooled
    assert "a constant describes the rows as well as this law: they show no trend" in pooled
    mup = [row for row in rows if row.parametrization == "mup"]  # one of the two alone does follow a law
    assert law("power", [row.params for row in mup], [row.value for row in mup], count=100).warnings == ()


def test_few_groups_are_said():
    x, y = losses("power")
    found = law("power", x, y, groups=np.arange(len(x)) % 4, count=20)
    assert found.warnings == ("4 groups are resampled: the intervals say little below 5",)


def test_predictions_say_how_far_they_are_from_what_was_measured():
    found = law("power", *losses("power", noise=0.01), count=50)
    inside, beyond, below = found.at([1e8, 5e9, 1e5])
    truth = TRUTH["power"][0](1e8, **TRUTH["power"][2])
    assert inside.low < truth < inside.high
    assert (inside.beyond, beyond.beyond, below.beyond) == pytest.approx((1.0, 5.0, 10.0))
    assert beyond.high - beyond.low > inside.high - inside.low


@pytest.mark.long
def test_the_interval_of_a_single_run_holds_one_more_run_as_often_as_it_says():
    f, x, truth = TRUTH["line"]
    new, noise, rng = np.geomspace(2e6, 8e8, 10), 0.02, np.random.default_rng(1)
    inside, of_the_law = [], []
    for _ in range(16):
        found = law("line", x, f(x, **truth) * np.exp(noise * rng.normal(size=len(x))), count=50)
        runs = f(new, **truth) * np.exp(noise * rng.normal(size=len(new)))
        inside += [p.run_low < run < p.run_high for p, run in zip(found.at(new), runs, strict=True)]
        of_the_law += [p.low < run < p.high for p, run in zip(found.at(new), runs, strict=True)]
    assert 0.9 < np.mean(inside) < 0.995
    assert np.mean(of_the_law) < 0.7


def test_beyond_what_was_measured_a_run_may_be_off_by_what_those_held_out_were():
    x, y = losses("power", noise=0.001)
    bent = law("line", x, y, count=50)  # not of this form: the largest are off by more than the residuals
    inside, beyond = bent.at([9e8, 1.1e9])
    wide, narrow = (np.log(p.run_high / p.run_low) for p in (beyond, inside))
    assert wide > 1.5 * narrow
    assert wide > 2 * bent.held_out["rms_log_error"]


@pytest.mark.parametrize("form", ["line", "power"])
def test_an_input_that_is_the_same_everywhere_determines_nothing(form):
    with pytest.raises(UserError, match=rf"^x is 1e\+09 in all 12 rows: {form} needs it to vary; give another --x$"):
        law(form, np.full(12, 1e9), np.linspace(1, 2, 12))


def test_of_two_inputs_neither_may_be_the_same_everywhere():
    x = np.stack([np.geomspace(1e6, 1e9, 12), np.full(12, 1e9)], axis=1)
    with pytest.raises(UserError, match=r"samples is 1e\+09 in all 12 rows: chinchilla needs it to vary; give another"):
        law("chinchilla", x, np.linspace(1, 2, 12), names=("params", "samples"))


def test_inputs_that_rise_together_leave_no_constant_to_print(monkeypatch):
    n = np.geomspace(1e7, 1e10, 64)
    x = np.stack([n, np.round(20 * n, -8)], axis=1)
    monkeypatch.setattr(report, "against_others", against_simpler)  # as good here, and none to compile
    found = law("two_powers", x, chinchilla(x, **TRUTH["chinchilla"][2]), count=20, names=("params", "samples"))
    assert "params and samples rise together (correlation 1.00): their parts cannot be told apart" in found.warnings
    for p in found.summary()["parameters"].values():
        assert p == {"value": None, "low": None, "high": None}
    along, off = found.at([[1e9, 2e10], [1e9, 2e11]])
    assert (along.beyond, off.beyond) == (1.0, pytest.approx(10, rel=0.2))  # what was measured is a line
    assert along.value == pytest.approx(chinchilla(np.array([[1e9, 2e10]]), **TRUTH["chinchilla"][2])[0], rel=0.05)


def test_how_inputs_go_together_is_seen_in_their_logarithms():
    n = np.geomspace(1e7, 1e10, 12)
    grid = np.stack([n, np.roll(n, 5)], axis=1)
    assert undetermined("chinchilla", grid, "ND", "AB") == {}
    for second, words in ((n**0.5, "rise together"), (1e15 / n, "go together, one up and one down")):
        found = undetermined("kaplan", np.stack([n, second], axis=1), ("N", "D"), ("N_c", "D_c"))
        ((why, names),) = found.items()
        assert why.startswith(f"N and D {words}")
        assert names == ["N_c", "D_c"]


def test_two_values_of_an_input_say_nothing_of_how_a_power_and_an_offset_share_them():
    x = np.stack([np.tile(np.geomspace(1e7, 1e10, 6), 2), np.repeat([1e9, 1e11], 6)], axis=1)
    assert undetermined("chinchilla", x, ("N", "D"), ()) == {
        "D has 2 values: chinchilla needs 3 to determine B, E, beta, N_opt_exponent": [
            "B",
            "E",
            "beta",
            "N_opt_exponent",
        ]
    }
    assert undetermined("two_powers", x, ("N", "D"), ()) == {}


def test_an_offset_that_is_not_needed_is_0_and_the_form_without_it_is_named():
    found = law("power", *losses("line", noise=0.001), count=20).summary()
    assert found["parameters"]["c"]["value"] == found["parameters"]["c"]["low"] == 0
    assert "c is not needed: --form=line" in found["advice"]
    x, y = losses("line", noise=0.001)
    rises = law("power", x, 1 / y, count=20).summary()["parameters"]["b"]
    assert rises["low"] <= rises["value"] < 0  # what is no offset may be less than nothing
    kept = law("power", *losses("power", noise=0.001), count=20).summary()
    assert kept["parameters"]["c"]["value"] > 0
    assert kept["advice"] == ["the best of these forms by AICc is this one"]


def test_forms_of_the_same_inputs_are_compared_both_ways():
    x, y = losses("saturating", noise=0.0005)
    found = law("power", x, y, count=20)
    assert list(found.against) == ["line", "saturating"]
    assert found.against["saturating"] < -10
    assert "the best of these forms by AICc is a (x + d)^-b + c: --form=saturating" in found.summary()["advice"]
    assert any("a (x + d)^-b + c (--form=saturating) is better by far" in warning for warning in found.warnings)


def test_intervals_end_in_numbers_wherever_there_are_any():
    x = np.arange(1000.0)
    with np.errstate(all="raise"):
        assert interval(np.where(x % 3 == 0, np.nan, x)) == pytest.approx((25, 974), abs=2)
        assert interval(np.where(x > 900, np.inf, x)) == (25, np.inf)
        assert np.isnan(interval(x * np.nan)).all()
    np.testing.assert_array_equal(
        interval(np.stack([x, -x], axis=1)), np.nanpercentile(x[:, None] * [1, -1], [2.5, 97.5], 0)
    )


@pytest.mark.long
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


def test_the_other_choice_of_loss_stands_beside_the_result():
    x, y = losses("line", noise=0.05)
    huber, squares = law("line", x, y, count=5), law("line", x, y, delta=10.0, count=5)
    slope = -np.polyfit(np.log(x), np.log(y), 1)[0]
    assert huber.otherwise == pytest.approx({"b": slope})  # least squares in closed form
    assert squares.fit.constants["b"] == pytest.approx(slope)
    assert squares.otherwise == pytest.approx({"b": huber.fit.constants["b"]}, abs=1e-6)
    assert abs(huber.fit.constants["b"] - slope) > 1e-3
    said = huber.summary()["loss"]
    assert (said["delta"], said["other_delta"]) == (1e-3, 10.0)
