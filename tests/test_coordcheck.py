"""The command of the coordinate check; its results are tested in tests/training/test_coord_check.py."""

import pytest

from scaling.core.rows import read_rows
from tests.commands import call, command, error_of, run

SMALL = {
    "config.batch_size": 32,
    "config.model.image_size": 16,
    "config.model.width": 32,
    "config.model.heads": 1,
    "config.model.depth": 2,
    "config.model.mlp": 64,
    "config.objective.decoder_width": 32,
    "config.data.source": "scenes?size=16&count=512",
    "config.data.eval_split": "",
    "config.optimizer.base_lr": 0.08,
}


def check(output, how=call, **flags):
    return how(command("coordcheck", config="small.py", output=output, **SMALL, **flags))


@pytest.mark.long
def test_a_table_rows_and_a_figure_come_out(tmp_path):
    done = check(tmp_path, run, widths="32,64,128", steps=2)
    assert done.returncode == 0, done.stderr
    assert "largest over smallest mean absolute coordinate between the widths" in done.stdout
    rows = read_rows(tmp_path / "rows.jsonl")
    assert all(row.device and row.versions for row in rows)
    assert {(row.parametrization, row.embed, row.step) for row in rows} == {
        (name, width, step) for name in ("standard", "mup") for width in (32, 64, 128) for step in (0, 1, 2)
    }
    assert all((tmp_path / f"coordinates.{kind}").stat().st_size > 1000 for kind in ("png", "svg"))


def test_wrong_input_is_one_line(tmp_path):
    assert "--widths=64: must be two or more whole numbers" in error_of(check(tmp_path, run, widths="64"), 2)
    assert "'': must be one of standard, mup, completep" in error_of(check(tmp_path, parametrizations=""), 2)
    assert "'mu': must be one of standard, mup, completep" in error_of(check(tmp_path, parametrizations="mu"), 2)
