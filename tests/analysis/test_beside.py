"""Published numbers beside those measured here."""

import dataclasses

import pytest

from scaling.analysis.beside import beside_tables, beyond, compared
from scaling.core.errors import UserError
from tests.rows import ROW


def cell(model, width, metric, value, low=None, high=None, **more):
    fields = {"dataset": "m-eurosat", "probe": "knn", "mode": "inner", "ordering": "first", "compute_published": width}
    about = {"model": model, "width_ratio": width, "metric": metric, "value": value, "low": low, "high": high}
    return dataclasses.replace(ROW, **(fields | about | more))


THEIRS = [cell("a", 1.0, "macro_accuracy", 0.8), cell("a", 0.1, "macro_accuracy", 0.6)]
OURS = [
    cell("a", 1.0, "macro_accuracy", 0.7, 0.65, 0.75),
    cell("a", 0.1, "macro_accuracy", 0.57, 0.5, 0.64),
    cell("a", 0.1, "macro_accuracy_retention", 0.81, 0.7, 0.92),
    cell("a", 0.1, "accuracy", 0.99),
    cell("a", 0.5, "macro_accuracy", 0.65),  # a width that is not published
    cell("b", 0.1, "macro_accuracy", 0.5),
]


def test_a_difference_has_the_interval_of_ours():
    first, second, other = compared(OURS, THEIRS, "m-eurosat", "knn", "macro_accuracy")
    assert (first.ours.value, first.theirs) == (pytest.approx(0.57), 0.6)
    assert (first.ours.low, first.ours.high) == (0.5, 0.64)
    assert (first.kept.value, first.kept_theirs) == (pytest.approx(0.81), pytest.approx(0.75))
    assert (second.ours.width_ratio, second.theirs, second.kept_theirs) == (1.0, 0.8, 1.0)
    assert (other.ours.model, other.theirs) == ("b", None)
    table = beside_tables(OURS, THEIRS)
    assert "| a | 0.1 | 10.0% | 0.5700 (0.5000 to 0.6400) | 0.6000 | -0.0300 (-0.1000 to +0.0400) |" in table
    assert "| 0.8100 (0.7000 to 0.9200) | 0.7500 | +0.0600 (-0.0500 to +0.1700) |" in table
    assert "| b | 0.1 | 10.0% | 0.5000 | not published |  | not defined |" in table
    assert "0.99" not in table
    assert "| a | 1 |" in table
    assert "| a | 0.5 |" not in table
    assert beyond(OURS, THEIRS) == ["m-eurosat, knn: s = 0.5"]
    elsewhere = [cell("a", 1.0, "macro_accuracy", 0.7, probe=probe) for probe in ("linear", "features", "labels")]
    assert beyond(elsewhere, THEIRS) == ["m-eurosat, linear: no scores of it are published"]


def test_several_rows_of_a_cell_are_refused_and_an_undefined_score_is_shown():
    rows = [cell("a", 1.0, "macro_accuracy", 0.5), cell("a", 1.0, "macro_accuracy", 0.9, config_hash="b")]
    with pytest.raises(UserError, match="2 rows of a, s = 1, on m-eurosat: knn macro_accuracy; give one"):
        compared(rows, THEIRS, "m-eurosat", "knn", "macro_accuracy")
    assert "| not defined | 0.8000 |  |" in beside_tables([cell("a", 1.0, "macro_accuracy", None)], THEIRS)
