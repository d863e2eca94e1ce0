"""Questions to a law are parsed as written."""

import pytest

from scaling.analysis.laws.predictions import questions
from scaling.core.errors import UserError


def test_numbers_may_have_the_letters_that_people_give_them():
    asked = questions("chinchilla", ["1B:1.5T", "300M:2e9", "7:5K"], ["1e18", "2T"])
    assert list(asked.points.values()) == [[1e9, 1.5e12], [3e8, 2e9], [7.0, 5e3]]
    assert list(asked.budgets.values()) == [1e18, 2e12]


@pytest.mark.parametrize("written", ["1MM", "1b", "B", "-1B", "", "1B:2B"])
def test_other_letters_are_not_guessed(written):
    with pytest.raises(UserError, match=f"--at={written}: a positive number like 1e9"):
        questions("power", [written], [])
