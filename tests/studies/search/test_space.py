"""The candidates of a space, the order in which they are measured, and their latency by the table of blocks."""

import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.models.variants import Architecture
from scaling.studies.search.latency import BLOCK, STEM, LatencyTable, table_widths
from scaling.studies.search.run import Measured, explore, front_of
from scaling.studies.search.space import Candidate, Space, Widths
from tests.slimming.encoders import encoder

AXES = ("layers", "heads", "head_dim", "mlp")
WIDTHS = (0.25, 0.5, 0.75)


def space(axes=AXES, widths=WIDTHS, blocks="prefix", influence=None, **sizes):
    return Space(Architecture(encoder(**{"depth": 4, "heads": 4, **sizes}).config), axes, widths, blocks, influence)


def test_sets_of_blocks():
    assert space().sets == [(0,), (0, 1), (0, 1, 2), (0, 1, 2, 3)]
    by_influence = space(blocks="all", influence=np.array([0.4, 0.1, 0.3, 0.2])).sets
    assert set(by_influence) - set(space().sets) == {(0, 2), (0, 2, 3)}
    assert len(space(blocks="any").sets) == 15
    with pytest.raises(UserError, match="--blocks=any: 9 blocks have too many subsets"):
        space(blocks="any", depth=9)


def test_shares_that_keep_as_many_units_are_one():
    found = space(widths=(0.3, 0.49, 0.5), heads=2)
    assert found.shares["heads"] == [0.5, 1.0]  # one head and both
    assert [str(w) for w in found.uniform] == [
        "head_dim 0.3, mlp 0.3",
        "head_dim 0.49, mlp 0.49",
        "head_dim 0.5, mlp 0.5",
        "whole width",
    ]
    with pytest.raises(UserError, match="nothing can be cut"):
        space(axes=("branch",))


def test_the_front_is_found_without_all_candidates():
    """Cost and error of a smooth problem: every axis pays by its own share."""
    s, calls = space(), []

    def measured(widths):
        calls.extend(widths)
        return [_measured(c) for w in calls for c in s.candidates(w)]

    best = front_of([_measured(c) for w in s.all_widths for c in s.candidates(w)])
    found = explore(s, 1000, 0.3, measured)
    assert len(calls) == len(set(calls)) == len(s.all_widths) == 64
    assert _points(front_of(found)) == _points(best)
    calls.clear()
    some = front_of(explore(s, 160, 0.3, measured))
    assert len(calls) == 40
    assert _points(one for one in some if one.cost <= 0.3)[-1] == _points(one for one in best if one.cost <= 0.3)[-1]


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_an_interrupted_search_takes_the_same_path_when_it_resumes(rounds):
    s = space()

    def measured_until(last, done):
        def measured(widths):
            if last == 0 or len(calls) == last:
                raise InterruptedError
            calls.append([w for w in widths if w not in done])
            done.extend(calls[-1])
            return [_measured(c) for w in done for c in s.candidates(w)]

        calls = []
        return measured, calls

    whole, parts = [], []
    expected = explore(s, 160, 0.3, measured_until(-1, whole)[0])
    with pytest.raises(InterruptedError):
        explore(s, 160, 0.3, measured_until(rounds, parts)[0])
    assert 0 < len(parts) < len(whole)
    assert explore(s, 160, 0.3, measured_until(-1, parts)[0]) == expected
    assert parts == whole
    again, calls = measured_until(-1, parts)
    assert explore(s, 160, 0.3, again) == expected
    assert not any(calls)


def test_one_that_meets_the_budget_is_measured_where_there_is_one():
    """The uniform widths leave the heads whole."""
    s = space(axes=("heads", "head_dim", "mlp"))
    cheapest = min(_measured(c).cost for c in s.cheapest)
    found = explore(s, 1, cheapest, lambda widths: [_measured(c) for w in widths for c in s.candidates(w)])
    assert min(one.cost for one in found) == cheapest < min(_measured(s.whole_depth(w)).cost for w in s.uniform)


def test_a_mode_stands_for_its_axes():
    assert list(space(axes=("token",)).shares) == ["head_dim", "mlp", "embed"]
    with pytest.raises(UserError, match="unknown slimming mode"):
        space(axes=("layers", "inner"))


def _points(found):
    return [(round(one.cost, 9), round(one.error, 9)) for one in found]


def _measured(candidate):
    ratios = candidate.widths.ratios
    shares = [ratios.get(axis, 1.0) for axis in ("heads", "head_dim", "mlp")] + [len(candidate.blocks) / 4]
    error = sum(weight * (1 - share) ** 2 for weight, share in zip((1, 2, 3, 4), shares, strict=True))
    return Measured(candidate, float(shares[3] * (shares[0] * shares[1] + 2 * shares[2]) / 3), error, error)


def test_the_latency_of_blocks_between_those_that_were_measured():
    s = space(axes=("layers", "heads", "mlp"))
    seconds = {}
    for widths in table_widths(s):
        c = s.config(Candidate(widths, (0, 1, 2, 3), 4))
        seconds[str(widths)] = 1e-3 * c.heads * c.mlp + 2e-3 * c.mlp  # linear in each
    table = LatencyTable(s, {STEM: dict.fromkeys(seconds, 0.5), BLOCK: seconds})
    assert len(seconds) == 9
    between = Candidate(Widths((("heads", 0.5), ("mlp", 0.5))), (0, 2), 4)  # 2 heads, 10 units
    assert table(between) == pytest.approx(0.5 + 2 * (1e-3 * 2 * 10 + 2e-3 * 10))
