"""Variable projection finds the same law by another way."""

import numpy as np
import pytest

from scaling.analysis.laws.fitting import fit
from scaling.analysis.laws.projection import LINEAR, project
from scaling.core.errors import UserError
from tests.analysis.laws.examples import TRUTH, losses


@pytest.mark.parametrize("form", LINEAR)
def test_without_noise_every_constant_is_found(form):
    found = project(form, *losses(form))
    for name, value in TRUTH[form][2].items():
        assert found[name] == pytest.approx(value, rel=1e-5)


@pytest.mark.long
def test_it_agrees_with_the_fit_of_logarithms_to_within_the_noise():
    x, y = losses("chinchilla", noise=0.002)
    projected, fitted = project("chinchilla", x, y), fit("chinchilla", x, y, delta=1.0).constants
    for name in ("alpha", "beta", "E"):
        assert projected[name] == pytest.approx(fitted[name], rel=0.01)


def test_a_constant_that_helps_nothing_is_zero_not_negative():
    x = np.geomspace(1, 100, 12)
    assert project("power", x, 3 * x**-0.5 * np.exp(-0.02 * np.log(x) ** 2))["c"] == 0


def test_a_form_that_is_not_linear_is_refused():
    with pytest.raises(
        UserError, match="kaplan is not linear in any constant; variable projection is for power, chinchilla"
    ):
        project("kaplan", *losses("kaplan"))
