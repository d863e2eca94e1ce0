"""A law is recovered from data that follow it, and no other optimiser finds a better fit."""

import numpy as np
import pytest
import scipy.optimize

from scaling.analysis.laws import fitting
from scaling.analysis.laws.fitting import DELTA, fit, refits, resamples
from scaling.analysis.laws.forms import FORMS
from scaling.core.errors import UserError
from tests.analysis.laws.examples import TRUTH, losses


@pytest.mark.parametrize(
    "form", [f if f in ("power", "chinchilla") else pytest.param(f, marks=pytest.mark.long) for f in TRUTH]
)
def test_without_noise_every_constant_is_found(form):
    found = fit(form, *losses(form))
    for name, value in TRUTH[form][2].items():
        assert found.constants[name] == pytest.approx(value, rel=1e-6)
    assert found.gradient < 1e-9
    np.testing.assert_allclose(found.predict(TRUTH[form][1]), losses(form)[1], rtol=1e-9)


def huber(form, constants, x, y):
    size = np.abs(np.log(TRUTH[form][0](x, **constants)) - np.log(y))
    return np.where(size <= DELTA, size**2 / 2, DELTA * (size - DELTA / 2)).sum()


@pytest.mark.parametrize("form", ["power", pytest.param("chinchilla", marks=pytest.mark.long)])
def test_scipy_from_many_starts_finds_nothing_lower(form):
    x, y = losses(form, noise=0.02)
    found = fit(form, x, y)
    truth = TRUTH[form][2]
    exponents = [name in ("b", "alpha", "beta") for name in truth]

    def objective(theta):
        values = [t if is_exponent else np.exp(t) for t, is_exponent in zip(theta, exponents, strict=True)]
        with np.errstate(all="ignore"):
            loss = huber(form, dict(zip(truth, values, strict=True)), x, y)
        return loss if np.isfinite(loss) else 1e9

    centre = np.array([t if e else np.log(t) for t, e in zip(truth.values(), exponents, strict=True)])
    rng, lowest = np.random.default_rng(0), np.inf
    for _ in range(30):
        start = centre + rng.normal(size=len(centre)) * np.where(exponents, 0.1, 0.5)
        lowest = min(
            lowest, scipy.optimize.minimize(objective, start, method="Nelder-Mead", options={"maxiter": 4000}).fun
        )
    assert found.objective == pytest.approx(huber(form, {n: found.constants[n] for n in truth}, x, y), rel=1e-6)
    assert found.objective <= lowest * (1 + 1e-6)


def test_the_spread_of_weighted_means_is_the_standard_error():
    for n in (5, 14, 64):
        x = np.random.default_rng(n).normal(size=n)
        means = resamples(np.arange(n), 20_000) @ x / n
        assert means.mean() == pytest.approx(x.mean(), abs=0.02)
        assert means.std() == pytest.approx(x.std(ddof=1) / np.sqrt(n), rel=0.02)


def test_rows_that_count_several_times_give_the_fit_to_as_many_rows():
    x, y = losses("power", noise=0.01)
    found = fit("power", x, y)
    weights = np.random.default_rng(0).multinomial(len(y), np.full(len(y), 1 / len(y)), size=3)
    again = refits(found, x, y, weights)
    for theta, w in zip(again, weights, strict=True):
        rows = np.repeat(np.arange(len(y)), w)
        alone = fit("power", x[rows], y[rows])
        np.testing.assert_allclose(found.predict(x, theta[None])[0], alone.predict(x), rtol=1e-4)


def test_in_a_flat_valley_a_resample_is_sought_along_it():
    x, y = np.array([2.0, 4, 6, 8, 12]), np.array([0.8427, 0.8412, 0.8390, 0.8384, 0.8395])
    found = fit("power", x, y)
    assert len(found.others) > 0
    offsets = FORMS["power"].constants(refits(found, x, y, resamples(range(5), 50)), *found.centre)["c"]
    assert np.ptp(offsets) > 0.3  # any offset between 0 and the smallest value will do


def test_rows_of_a_run_come_together():
    weights = resamples(["a", "a", "b", "b", "b", "c"], 200)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2:4] == weights[:, 4:5]).all()
    np.testing.assert_allclose(weights[:, [0, 2, 5]].sum(1), 3)


@pytest.mark.parametrize(
    ("form", "x", "y", "message"),
    [
        ("cubic", [1, 2, 3, 4], [1, 2, 3, 4], "form=cubic: must be one of line, power"),
        ("power", [1, 2, 3], [3, 2, 1], "power has 3 constants and needs more points than 3"),
        ("power", [1, 2, 0, 4], [4, 3, 2, 1], "the inputs must be positive and finite"),
        ("power", [1, 2, 3, 4], [4, 3, np.nan, 1], "the values must be positive and finite"),
        ("power", [1, 2, 3, 4], [4, 3, 2], "4 inputs and 3 values"),
        ("chinchilla", [1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], "needs 2 inputs: N, D"),
    ],
)
def test_what_cannot_be_fitted_is_said(form, x, y, message):
    with pytest.raises(UserError, match=message):
        fit(form, x, y)


@pytest.mark.long
def test_many_rows_are_fitted_from_where_a_sample_of_them_led(monkeypatch):
    rng = np.random.default_rng(0)
    x = 10 ** rng.uniform(6, 9, 200)
    y = (400.0 * x**-0.35 + 1.7) * np.exp(0.01 * rng.normal(size=200))
    all_starts = fit("power", x, y)
    monkeypatch.setattr(fitting, "MANY", 100)
    assert fit("power", x, y).objective == pytest.approx(all_starts.objective, rel=1e-9)
    assert fit("power", x, y).constants == pytest.approx(all_starts.constants, rel=1e-4)
