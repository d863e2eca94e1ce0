"""Columns that are made, and rows that are kept."""

import polars as pl
import pytest

from scaling.analysis.frames.expressions import keep, made, with_columns
from scaling.core.errors import UserError

DATA = pl.DataFrame(
    {
        "Model Size": [1e9, 2e9, 4e9],
        "acc": [70.0, 80.0, None],
        "model": ["vit_b", "vit_l", "vit_b"],
        "seed": [0.0, 1.0, 2.0],
    }
)


def values(expression):
    return with_columns(DATA, made([f"new={expression}"]))["new"].to_list()


def test_a_column_is_made_of_others():
    assert values("`Model Size`") == [1e9, 2e9, 4e9]
    assert values("1-acc/100")[:2] == pytest.approx([0.3, 0.2])
    assert values("6*`Model Size`*1e12") == [6e21, 12e21, 24e21]
    assert values("case when model='vit_b' then 86e6 else 304e6 end") == [86e6, 304e6, 86e6]
    both = with_columns(DATA, made(["N=`Model Size`", "D=6*N"]))
    assert both["D"].to_list() == [6e9, 12e9, 24e9]


def test_numbers_may_end_in_a_letter():
    assert left("`Model Size`<1.5B") == left("Model Size<1.5B") == left("Model Size=1B") == [0.0]
    assert left("`Model Size`*2 >= 4000M and model != '1B'") == [1.0, 2.0]
    assert values("`Model Size`/1B") == [1.0, 2.0, 4.0]


def left(*conditions):
    return keep(DATA, conditions)[0]["seed"].to_list()


def test_rows_are_kept_by_comparisons():
    assert left("acc<75") == [0.0]
    assert left("acc>=70") == [0.0, 1.0]
    assert left("seed!=1") == [0.0, 2.0]
    assert left("model=vit_b") == [0.0, 2.0]
    assert left("seed=0", "seed=2.0") == [0.0, 2.0]  # of one name either value
    assert left("seed=0", "seed=1", "acc<75") == [0.0]
    assert left("`Model Size`<3e9") == left("Model Size<3e9") == [0.0, 1.0]
    assert left("`Model Size`/1e9 > acc/50 or seed=0") == [0.0, 1.0]
    assert keep(DATA, ["acc>0"])[1] == ["--where=acc>0 keeps 2 of 3 rows, in 1 of the others a cell is empty"]


WRONG = {
    "x=": "a name and an expression of columns",
    "x=ac+1": "there is no column ac; did you mean acc",
    "x=acc**2": "unable to parse",
    "x=frobnicate(acc)": "unsupported function 'frobnicate'",
    "x=acc b": "there is no operator before b",
    "x=acc AS b": "there is no operator before b",
    "x=1k": "there is no operator before k; write one, or write a number as 1e9 or 1B",
    "x=model*2": "--column=x=model",
}


def test_wrong_expressions_are_refused_in_one_line():
    for written, said in WRONG.items():
        with pytest.raises(UserError, match=said) as refused:
            with_columns(DATA, made([written]))
        assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="x is already a computed column; choose another name"):
        made(["x=1", "x=2"])


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("acc>90", "no row of 3 has all of --where=acc>90"),
        ("model=vit_h", "no row has it; the column has vit_b, vit_l"),
        ("seed=x", "the column holds numbers, such as 0, 1, 2"),
        ("model<5", "the column does not hold numbers; it has vit_b, vit_l"),
        ("sede=1", "there is no column sede; did you mean seed"),
        ("sede<1", "there is no column sede; did you mean seed"),
        ("seed", "must be true or false"),
    ],
)
def test_wrong_conditions_are_refused_in_one_line(condition, said):
    with pytest.raises(UserError, match=said):
        keep(DATA, [condition])
