"""The destinations of rows, and the treatment of existing rows by a resumed run."""

import io
import json
import math
import os

import numpy as np
import pytest
from etils import epath
from PIL import Image
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from scaling.training.writers import JsonLines, ProgressBar, TensorBoard, read_metrics


def write(path, start, rows):
    writer = JsonLines(path, start)
    for step, row in rows:
        writer.write(step, row)
    writer.close()


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_one_object_a_line_with_its_step(path):
    write(path, 0, [(1, {"loss": 0.1 + 0.2}), (2, {"loss": 1e-300, "lr": 3.0})])
    assert read(path) == [{"step": 1, "loss": 0.1 + 0.2}, {"step": 2, "loss": 1e-300, "lr": 3.0}]


def test_a_row_is_on_disk_as_soon_as_it_is_written(path):
    writer = JsonLines(path, 0)
    writer.write(1, {"loss": 1.0})
    assert read(path) == [{"step": 1, "loss": 1.0}]


def test_a_resumed_run_drops_the_rows_it_will_compute_again(path):
    write(path, 0, [(step, {"loss": float(step)}) for step in range(1, 8)])
    write(path, 5, [(6, {"loss": -6.0})])
    assert [row["loss"] for row in read(path)] == [1, 2, 3, 4, 5, -6]


@pytest.mark.parametrize("torn", ['{"step": 4, "lo', '{"step": 3, "loss": 3.0}', "{", "\0\0\0"])
def test_a_line_torn_by_a_kill_is_dropped(path, torn):
    write(path, 0, [(1, {"loss": 1.0}), (2, {"loss": 2.0})])
    path.write_text(path.read_text() + torn)
    write(path, 3, [(4, {"loss": 4.0})])
    assert [row["step"] for row in read(path)] == [1, 2, 4]


def test_a_run_that_starts_over_starts_the_file_over(path):
    write(path, 0, [(1, {"loss": 1.0})])
    write(path, 0, [(1, {"loss": 2.0})])
    assert read(path) == [{"step": 1, "loss": 2.0}]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_still_json(path, value):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    write(path, 0, [(1, {"loss": value})])
    row = json.loads(path.read_text(), parse_constant=refuse)
    assert float(row["loss"]) == value or (math.isnan(value) and math.isnan(float(row["loss"])))


def test_what_is_not_finite_is_read_as_a_number_and_stays_json_when_a_run_resumes(path):
    write(path, 0, [(1, {"loss": 1.0, "eval_loss": math.inf}), (2, {"loss": 2.0})])
    assert read_metrics(path)[0]["eval_loss"] == math.inf
    write(path, 1, [(2, {"loss": 3.0})])
    assert read(path) == [{"step": 1, "loss": 1.0, "eval_loss": "inf"}, {"step": 2, "loss": 3.0}]


def events(folder):
    """(step, tag, value) of every scalar in a folder, from the record format: length, checksum, event, checksum."""
    return [(event.step, v.tag, v.simple_value) for event in raw_events(folder) for v in event.summary.value]


def raw_events(folder):
    for file in sorted(folder.iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            assert masked_crc32c(data[at : at + 8]) == int.from_bytes(data[at + 8 : at + 12], "little")
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length


def test_tensorboard_events_can_be_read_back(tmp_path):
    writer = TensorBoard(tmp_path, 0)
    writer.write(1, {"loss": 0.5, "lr": 0.25})
    writer.write(2, {"loss": 0.125})
    writer.close()
    assert events(tmp_path / "tensorboard") == [(1, "loss", 0.5), (1, "lr", 0.25), (2, "loss", 0.125)]


def test_tensorboard_shows_pictures(tmp_path):
    file = tmp_path / "drawn.png"
    Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3)).save(file)
    writer = TensorBoard(tmp_path, 0)
    writer.picture(7, "reconstruction", epath.Path(file))
    writer.close()
    (summary,) = [value for event in raw_events(tmp_path / "tensorboard") for value in event.summary.value]
    assert summary.tag == "reconstruction"
    shown = Image.open(io.BytesIO(summary.image.encoded_image_string))
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(Image.open(file)))


def test_a_full_disk_is_an_error_that_names_the_file_and_nothing_waits_for_the_thread_behind_it(tmp_path):
    writer = TensorBoard(tmp_path, 0)
    events_file = writer._writer.file_writer.event_writer._ev_writer._py_recordio_writer._writer
    _becomes(events_file, "/dev/full")
    with pytest.raises(OSError, match="No space left on device") as raised:  # noqa: PT012  whichever write is first
        for step in range(1, 100):
            writer.write(step, dict.fromkeys("abcdefghijklmnopqrst", 1.0))
        writer.close()
    assert raised.value.filename == str(tmp_path / "tensorboard")
    _becomes(events_file, tmp_path / "rest")


def _becomes(file, path):
    other = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.dup2(other, file.fileno())
    os.close(other)


def test_without_a_terminal_the_progress_bar_prints_a_line_a_row(capsys):
    bar = ProgressBar(10, 0)
    bar.write(3, {"loss": 0.5, "images_per_second": 1234.5, "eval_loss": 0.25})
    bar.close()
    assert capsys.readouterr().out == "step       3  loss 0.5000  1,234.5 images/s  held out 0.2500\n"


def test_without_a_terminal_every_row_behind_the_first_says_how_long_it_takes(capsys, monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    bar = ProgressBar(500, 40)
    for step, now in ((50, 400.0), (100, 500.0), (200, 4000.0), (500, 5000.0)):  # noqa: B007  what the clock shows
        bar.write(step, {"loss": 0.5, "images_per_second": 0.0})
    bar.close()
    assert [line.partition("0.5000")[2] for line in capsys.readouterr().out.splitlines()] == [
        "",
        "  0:13:20 left",  # 400 steps, of 2 seconds each
        "  2:00:00 left",  # 300 steps, of 24 seconds each
        "",
    ]


def test_a_step_that_was_compiled_alone_has_no_rate(capsys):
    bar = ProgressBar(10, 0)
    bar.write(1, {"loss": 0.5, "images_per_second": 0.0})
    bar.close()
    assert capsys.readouterr().out == "step       1  loss 0.5000\n"


def test_on_a_terminal_the_progress_bar_moves_between_the_rows(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar = ProgressBar(10, 0)
    bar.advance(3)
    bar.close()
    out = capsys.readouterr().out
    assert "compiling" in out  # until there is a row
    assert "3/10" in out
