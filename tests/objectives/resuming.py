"""A run that ends in the middle and is resumed."""

import shutil

from scaling.training.pretraining import pretrain
from tests.commands import rows_of
from tests.training.train_steps import assert_trees_equal


def resumed_to_the_last_bit(c, tmp_path, names):
    """Asserts that a run of four steps in `a` equals that in `b`, which lost everything after the second step: the
    state and the rows of these names.
    """
    done = pretrain(c, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "4")
    log = tmp_path / "b" / "metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))
    resumed = pretrain(c, tmp_path / "b")
    assert resumed.start == 2
    assert_trees_equal(resumed.state, done.state)
    for name in names:
        rows = [[row[name] for row in rows_of(tmp_path / run) if name in row] for run in "ab"]
        assert rows[0]
        assert rows[0] == rows[1]
    return done
