"""Rows are written once, survive kills, and identify their measurement."""

import dataclasses
import json

import pytest

from scaling.core.config import config_dict
from scaling.core.errors import UserError
from scaling.core.rows import Results, Row, config_hash, given_rows, provenance, read_rows, write_rows
from scaling.data.config import DataConfig
from scaling.studies.measurements import read_measurements
from scaling.training.config import TrainConfig

ROW = Row(
    study="s",
    model="m",
    objective="mae",
    params=10,
    flops=20,
    compute=0.5,
    compute_published=0.4,
    width_ratio=0.5,
    depth_ratio=1.0,
    mode="inner",
    ordering="first",
    recovery="none",
    dataset="d",
    split="test",
    probe="knn",
    metric="macro_accuracy",
    value=0.7,
)


def test_rows_come_back_as_they_were(tmp_path):
    rows = [ROW, dataclasses.replace(ROW, metric="accuracy", value=None, low=0.1, **provenance())]
    Results(tmp_path / "rows.jsonl").add(rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows


def test_rows_are_read_under_the_names_that_their_fields_had_at_first(tmp_path):
    fields = dataclasses.asdict(ROW)
    now = {"width": fields.pop("width_ratio"), "depth": fields.pop("depth_ratio")}
    (tmp_path / "rows.jsonl").write_text(json.dumps(fields | now) + "\n")
    results = Results(tmp_path / "rows.jsonl")
    assert results.rows == [ROW]
    assert ROW in results


def test_a_measurement_is_kept_once_whatever_came_out(tmp_path):
    results = Results(tmp_path / "rows.jsonl")
    results.add([ROW])
    again = dataclasses.replace(ROW, value=0.9, device="another")
    assert again in results
    results.add([again, dataclasses.replace(ROW, seed=1)])
    assert [(row.value, row.seed) for row in read_rows(tmp_path / "rows.jsonl")] == [(0.7, 0), (0.7, 1)]


def test_a_torn_line_is_dropped_and_written_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    Results(path).add([ROW, dataclasses.replace(ROW, seed=1)])
    path.write_bytes(path.read_bytes()[:-20])
    results = Results(path)
    assert results.rows == [ROW]
    results.add([dataclasses.replace(ROW, seed=1)])
    assert [row.seed for row in read_rows(path)] == [0, 1]


def test_a_whole_row_counts_without_an_end_of_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    Results(path).add([ROW, dataclasses.replace(ROW, seed=1)])
    path.write_bytes(path.read_bytes()[:-1])
    assert [row.seed for row in read_rows(path)] == [0, 1]
    Results(path).add([dataclasses.replace(ROW, seed=2)])
    assert [row.seed for row in read_rows(path)] == [0, 1, 2]


def changed(**fields):
    return json.dumps({**dataclasses.asdict(ROW), **fields}).encode() + b"\n"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"not json\n", "Expecting value"),
        (b'{"study": "\xe9"}\n', "codec can't decode"),
        (b'{"study": "s"}\n', "missing"),
        (changed(value="high"), "value='high': must be of type float"),
        (changed(model=["a"]), r"model=\['a'\]: must be of type str"),
        (changed(objective=None), "objective=None: must be of type str"),
        (changed(layers=1.5), "layers=1.5: must be of type int"),
        (changed(params=10**400), r"params=10{59}… \(401 characters\) is too large; the largest number is 1.8e\+308"),
        (changed(params=float("inf")), "params=inf: must be of type int"),
        (changed(value=10**400), "value=10{59}…"),
        (changed(model=["a" * 100]), r"model=\['a{58}… \(104 characters\): must be of type str"),
        (b"[" * 100_000 + b"\n", "recursion"),
        (b"17\n", "must be a mapping"),
    ],
)
def test_another_file_is_not_taken_for_rows(tmp_path, line, why):
    (tmp_path / "rows.jsonl").write_bytes(line)
    with pytest.raises(UserError, match=f"line 1, is not a row of measurements: .*{why}"):
        Results(tmp_path / "rows.jsonl")


def test_there_must_be_a_file_to_read(tmp_path):
    with pytest.raises(UserError, match="no such file of rows"):
        read_rows(tmp_path / "rows.jsonl")


def test_configurations_are_told_apart():
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1}) != config_hash({"a": 1, "b": 3})


def test_fields_of_the_data_that_came_later_leave_the_hash_as_it_was():
    fields = config_dict(DataConfig()).to_dict()
    later = ("crop", "resize_ratio", "resize_base", "max_class_share", "photometric", "rotate", "rotate_upright")
    before = {name: value for name, value in fields.items() if name not in later}
    assert config_hash({"data": fields}) == config_hash({"data": before})
    for changed in ({"crop": "ratio"}, {"rotate": 0.5}, {"rotate_upright": ("a",)}):
        assert config_hash({"data": {**fields, **changed}}) != config_hash({"data": before})


def test_a_run_that_cannot_end_early_has_the_hash_that_it_had_before_it_could():
    fields = config_dict(TrainConfig()).to_dict()
    before = {name: value for name, value in fields.items() if name != "early_stopping"}
    assert config_hash(fields) == config_hash(before) != config_hash({**fields, "early_stopping": 3})


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_rows_are_strict_json(tmp_path, number):
    path = tmp_path / "rows.jsonl"
    results = Results(path)
    with pytest.raises(UserError, match=r"value=(nan|inf) of macro_accuracy on d: rows hold finite numbers, or None"):
        results.add([dataclasses.replace(ROW, value=number)])
    assert not path.read_text()
    old = json.dumps(dataclasses.asdict(dataclasses.replace(ROW, value=float("nan")))) + "\n"
    path.write_text(old)  # as rows were once written
    assert read_rows(path) == [dataclasses.replace(ROW, value=None)]


def test_rows_that_a_file_given_lacks_are_said(tmp_path, caplog):
    file = tmp_path / "rows.jsonl"
    write_rows(file, [ROW, dataclasses.replace(ROW, seed=5)])
    assert len(given_rows(file)) == 2
    assert not caplog.messages
    file.write_bytes(file.read_bytes()[:-9])
    assert given_rows(file) == [ROW]
    assert "its last line is cut short and left out" in caplog.text
    file.write_text("")
    for read in (given_rows, read_measurements):
        with pytest.raises(UserError, match=r"rows\.jsonl: there are no rows in it; give a file of rows"):
            read(file)
