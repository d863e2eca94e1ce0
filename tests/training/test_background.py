"""Rows written by a thread: seldom, all of them, whatever errors the bucket returns."""

import json

import pytest

from scaling.training.background import InBackground
from scaling.training.writers import JsonLines, Writer


class Kept(Writer):
    """Stores its input; refuses the first few attempts."""

    def __init__(self, refusals=0):
        self.calls, self.refusals, self.closed = [], refusals, False

    def write_all(self, rows):
        if self.refusals:
            self.refusals -= 1
            raise OSError("429, Too Many Requests")
        self.calls.append([step for step, _ in rows])

    def picture(self, step, name, file):
        self.calls.append((step, name, file))

    def close(self):
        self.closed = True


def test_rows_of_a_while_are_written_together_and_all_of_them_at_a_checkpoint():
    kept = Kept()
    writer = InBackground(kept, every=60)
    for step in range(1, 6):
        writer.write(step, {})
    assert kept.calls == []
    writer.settle()
    assert kept.calls == [[1, 2, 3, 4, 5]]
    writer.write(6, {})
    writer.close()
    assert kept.calls[1:] == [[6]]
    assert kept.closed


def test_a_bucket_that_refuses_rows_does_not_end_the_run(caplog):
    writer = InBackground(Kept(refusals=1), every=60)
    writer.write(1, {})
    writer.settle()
    writer.close()
    assert "rows could not be written; the run continues and tries again: 429, Too Many Requests" in caplog.text


@pytest.mark.filterwarnings("ignore")
def test_rows_that_were_refused_are_written_with_the_next(bucket):
    writer = InBackground(JsonLines("gs://bucket/run/metrics.jsonl", 0), every=60)
    bucket.refuses = 400
    writer.write(1, {"loss": 1.0})
    writer.settle()
    bucket.refuses = 0
    writer.write(2, {"loss": 2.0})
    writer.close()
    assert [json.loads(line)["step"] for line in bucket.read("run/metrics.jsonl").splitlines()] == [1, 2]


def test_pictures_come_before_the_row_of_their_step():
    kept = Kept()
    writer = InBackground(kept, every=60)
    writer.picture(4, "reconstruction", "4.png")
    writer.write(4, {})
    writer.close()
    assert kept.calls == [(4, "reconstruction", "4.png"), [4]]
