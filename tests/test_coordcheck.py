"""The coordinate check: flat under muP, not under the standard parametrization."""

import pytest

from scaling.results import read_rows
from scaling.training.coordinates import spread
from tests.commands import command, error_of, run

SMALL = {
    "config.batch_size": 32,
    "config.model.image_size": 16,
    "config.model.width": 32,
    "config.model.heads": 1,
    "config.model.depth": 2,
    "config.model.mlp": 64,
    "config.model.decoder_width": 32,
    "config.data.source": "scenes?size=16&count=512",
    "config.data.eval_split": "",
    "config.optimizer.base_lr": 0.08,
}


def check(output, **flags):
    return run(command("coordcheck", config="small.py", output=output, **SMALL, **flags))


def test_numbers_keep_their_size_under_mup_alone(tmp_path):
    done = check(tmp_path, widths="32,128,512", steps=4)
    assert done.returncode == 0, done.stderr
    rows = read_rows(tmp_path / "rows.jsonl")
    assert {row.embed for row in rows} == {32, 128, 512}
    parts = {row.metric for row in rows}
    assert parts == {"stem", "embed", "prediction"} | {
        f"{network}{sublayer}/{layer}"
        for network, layers in (("", 2), ("decoder/", 1))
        for sublayer in ("attention", "mlp")
        for layer in range(layers)
    }

    def largest(name):
        """Spread between the widths of the part that has the largest, after the last step."""
        after = {
            part: [row.value for row in rows if (row.parametrization, row.metric, row.step) == (name, part, 4)]
            for part in parts
        }
        assert all(len(values) == 3 for values in after.values())
        return max(spread(values) for values in after.values())

    assert largest("mup") < 2 < largest("standard")
    assert all((tmp_path / f"coordinates.{kind}").stat().st_size > 1000 for kind in ("png", "svg"))
    assert "largest over smallest mean absolute coordinate between the widths" in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"widths": "64"}, "--widths=64: two or more whole numbers"),
        ({"widths": "33,64"}, "width 33 is not a whole number of heads"),
        ({"parametrizations": "mu"}, "--parametrizations: 'mu' is not one of standard, mup, completep"),
    ],
    ids=str,
)
def test_wrong_input_is_one_line(tmp_path, flags, message):
    assert message in error_of(check(tmp_path, **flags), 2)
