"""How parameters grow with compute: the parabolas are biased, the law is not, also where a sample does not cost 6 N."""

import numpy as np
import pytest

from scaling.analysis.laws.cost import cost_curve
from scaling.analysis.laws.isoflop import isoflop
from scaling.core.errors import UserError
from tests.analysis.laws.examples import SIZES, TRUTH, chinchilla, counted, exponent_along, with_decoder

pytestmark = pytest.mark.usefixtures("full_compilation")


def profile(budget, centre, width, models=9):
    n = np.geomspace(centre / width, centre * width, models)
    return np.stack([n, budget / 6 / n], axis=1)


@pytest.mark.long
def test_the_parabola_is_biased_where_its_range_is_off_centre_and_the_law_is_not():
    truth = TRUTH["chinchilla"][2]
    exact = truth["beta"] / (truth["alpha"] + truth["beta"])
    budgets = np.geomspace(1e18, 1e22, 5)
    scale = truth["alpha"] * truth["A"] / (truth["beta"] * truth["B"])
    best = scale ** (1 / (truth["alpha"] + truth["beta"])) * (budgets / 6) ** exact
    points = np.concatenate(
        [profile(b, n * 3 ** (i - 2), 30) for i, (b, n) in enumerate(zip(budgets, best, strict=True))]
    )
    found = isoflop(*points.T, chinchilla(points, **truth))
    assert found.law == pytest.approx(exact, abs=1e-6)
    assert abs(found.gap) > 0.005
    narrow = np.concatenate([profile(b, n, 1.5) for b, n in zip(budgets, best, strict=True)])
    assert isoflop(*narrow.T, chinchilla(narrow, **truth)).parabola == pytest.approx(exact, abs=1e-3)


def test_profiles_without_a_lowest_point_are_refused():
    n = np.array([1e7, 2e7, 4e7, 1e8, 2e8, 4e8])
    d = np.repeat([1e18, 1e20], 3) / 6 / n
    with pytest.raises(UserError, match="have no minimum between the smallest and the largest model"):
        isoflop(n, d, np.array([1.0, 2.0, 1.0, 1.0, 2.0, 1.0]))
    with pytest.raises(UserError, match="has 2 models, and a parabola needs three"):
        isoflop(n[[0, 1, 3, 4]], d[[0, 1, 3, 4]], np.ones(4))
    with pytest.raises(UserError, match="one compute budget"):
        isoflop(n[:3], d[:3], np.ones(3))


@pytest.mark.long
def test_resampled_profiles_hold_the_truth_and_a_third_column_says_what_a_budget_is():
    truth = TRUTH["chinchilla"][2]
    exact = truth["beta"] / (truth["alpha"] + truth["beta"])
    points = np.concatenate([profile(b, 1e8 * (b / 1e19) ** exact, 6, models=12) for b in np.geomspace(1e18, 1e21, 4)])
    losses = chinchilla(points, **truth) * np.exp(0.002 * np.random.default_rng(0).normal(size=len(points)))
    counted = 6 * points.prod(1) * np.random.default_rng(1).uniform(0.99, 1.01, len(points))
    found = isoflop(*points.T, losses, counted, count=100).summary()
    assert len(found["vertices"]) == 4
    for name in ("parabola", "law"):
        p = found["parameters"][name]
        assert p["low"] < p["value"] < p["high"]
    law_exponent = found["parameters"]["law"]
    assert law_exponent["low"] < exact < law_exponent["high"]


@pytest.mark.long
def test_the_law_is_lowest_along_the_compute_that_was_counted():
    truth, exact = TRUTH["chinchilla"][2], exponent_along(with_decoder)
    assert abs(exact - truth["beta"] / (truth["alpha"] + truth["beta"])) > 0.05  # of 6 N D, which this is not
    found = isoflop(*counted())
    assert found.law == pytest.approx(exact, abs=1e-3)
    assert found.warnings == ()
    assert found.held_out["rms_log_error"] < 1e-6


def test_a_best_model_at_the_end_of_the_models_is_said():
    said = " ".join(isoflop(*counted(np.geomspace(1e5, 5e5, 10), noise=1e-5)).warnings)
    assert (
        "by the law the best model at 2e+13, 9.28e+13, 4.31e+14, 2e+15 is the smallest or the largest there is" in said
    )
    assert "outside of its models" in said


def test_models_of_one_size_and_different_costs_are_said():
    n, d, loss, c = counted()
    cost = np.where(np.arange(len(n)) % 2, 1.2, 1.0)
    assert "what a sample costs is off by up to" in " ".join(isoflop(n, d / cost, loss, c).warnings)


def test_a_cost_per_sample_that_is_six_times_the_parameters_is_found():
    curve = cost_curve(SIZES, np.ones(10), 6 * SIZES)
    np.testing.assert_allclose(curve.multiples, [0, 0, 6], atol=1e-6)
    assert curve.misfit < 1e-9


def test_computes_without_a_gap_are_not_one_budget():
    n, d, loss, c = counted()
    jitter = 1.04 ** (np.arange(len(n)) % 10)
    assert "spread over a factor of 1.42 without a gap: not one budget" in " ".join(
        isoflop(n, d * jitter, loss, c * jitter).warnings
    )
