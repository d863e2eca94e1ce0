"""One question to own rows and to other people's tables."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from etils import epath

from scaling.analysis.frames.reading import read_frame
from scaling.analysis.laws.choosing import Question, choose_numbers
from scaling.core.errors import UserError
from tests.rows import ROW


def frame(folder, **columns):
    file = epath.Path(folder / "runs.csv")
    pl.DataFrame(columns).write_csv(file)
    return read_frame(file)


OWN = [
    dataclasses.replace(ROW, metric="loss", params=n, params_total=2 * n, seed=s, value=v)
    for n, s, v in ((10, 0, 0.9), (20, 0, 0.7), (40, 0, 0.5), (40, 1, 0.6))
]


def test_points_that_are_there_twice_are_data(tmp_path):
    there = frame(tmp_path, N=[1, 1, 1, 2], loss=[3.0, 3.0, 2.5, 2.0], lr=[0.1, 0.1, 0.2, 0.1])
    found = choose_numbers([there], Question(["N"], "loss"))
    np.testing.assert_array_equal(found.data.values, [3.0, 3.0, 2.5, 2.0])
    assert found.notes == (
        "3 rows have their N in common with another and all count, 1 of them equal another in every column; they "
        "differ in lr (--best=… takes one)",
    )
    best = choose_numbers([there], Question(["N"], "loss", best="lr"))
    np.testing.assert_array_equal(best.data.values, [2.5, 2.0])


def test_no_row_is_dropped_without_saying_which_and_why(tmp_path):
    there = frame(tmp_path, N=["1", "2", "3", "4", "5", "6"], loss=["1.0", "diverged", "NaN", None, "-1", "inf"])
    found = choose_numbers([there], Question(["N"], "loss"))
    np.testing.assert_array_equal(found.data.values, [1.0])
    assert found.notes == (
        "1 rows are left out: loss is not a number (runs.csv, row 2: 'diverged')",
        "4 rows are left out: loss is nan in 1 of 5 rows (runs.csv, row 3); loss is empty in 1 of 5 rows (runs.csv, "
        "row 4); loss is negative in 1 of 5 rows (runs.csv, row 5); loss is inf in 1 of 5 rows (runs.csv, row 6)",
    )


def test_own_rows_take_made_columns_and_comparisons_too():
    made = choose_numbers([OWN], Question(["M"], "loss", columns=["M=params_total-params"], where=["seed=0", "M<30"]))
    np.testing.assert_array_equal(made.data.inputs[:, 0], [10, 20])
    assert made.units == {"M": "params_total-params"}
    scaled = choose_numbers([OWN], Question(["params"], "loss", columns=["loss=loss/10"], where=["value>=0.6"]))
    np.testing.assert_allclose(scaled.data.values, [0.09, 0.07, 0.06])
    assert scaled.units["params"] == "parameters of the encoder"


def test_own_rows_stand_beside_a_table(tmp_path):
    theirs = frame(tmp_path, params=[5, 6], loss=[1.5, 1.4])
    found = choose_numbers([OWN, theirs], Question(["params"], "loss"))
    assert sorted(found.data.values) == [0.5, 0.6, 0.7, 0.9, 1.4, 1.5]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (Question(["n"], "loss"), "--x=n: there is no such column; did you mean N"),
        (Question(["N"], "los"), "--y=los: there is no such column; did you mean loss"),
        (Question(["name"], "loss"), "name is not a column of numbers: 'a'; --column=name=… computes one"),
        (Question(["N"], "loss", colour="lrr"), "--colour=lrr: there is no such column; did you mean lr"),
        (Question(["N"], "loss", envelope="2"), "--envelope=2: must be a number of bins, at least 3"),
        (Question(["N", "lr"], "loss", envelope="5"), "--envelope=5 needs a single --x, not N, lr"),
        (Question(["N"], "loss", envelope="3"), "only 2 bins of N hold a row"),
    ],
)
def test_wrong_questions_are_refused(tmp_path, ask, said):
    there = frame(tmp_path, N=[1, 2], loss=[2.0, 1.0], lr=[0.1, 0.2], name=["a", "b"])
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        choose_numbers([there], ask)


def test_the_envelope_is_the_best_of_each_bin(tmp_path):
    there = frame(tmp_path, C=[1, 2, 10, 20, 100, 1000], loss=[9.0, 8.0, 5.0, 6.0, 3.0, 2.0])
    found = choose_numbers([there], Question(["C"], "loss", envelope="3"))
    np.testing.assert_array_equal(found.data.inputs[:, 0], [2, 10, 1000])
    np.testing.assert_array_equal(found.data.values, [8.0, 5.0, 2.0])
    assert found.notes == ("3 of 6 rows are the best of their bin of C (3 bins), the others are not fitted",)
    centred = choose_numbers([there], Question(["C"], "loss", envelope="3:centre"))
    np.testing.assert_allclose(np.log10(centred.data.inputs[:, 0]), 3.1 * np.array([1, 3, 5]) / 6)
