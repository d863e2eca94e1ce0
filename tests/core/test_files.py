"""Files are written whole or not at all, and written lines stay."""

import os
import shutil

import pytest

from scaling.core.errors import TrainingError
from scaling.core.files import GrowingFile, naming, read_json_lines, whole_file, write_whole


def test_a_file_appears_whole_or_what_was_there_stays(tmp_path):
    file = tmp_path / "new" / "y.npy"
    write_whole(file, "one")

    def fills_the_disk():
        with whole_file(file) as aside:
            aside.write_text("half of it")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fills_the_disk()
    assert file.read_text() == "one"
    assert os.listdir(file.parent) == ["y.npy"]
    mask = os.umask(0o022)
    os.umask(mask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_link_stays_a_link_to_the_file_that_is_replaced(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for text in ("one", "two"):
        write_whole(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "file").read_text() == text


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    write_whole(pipe, "rows")
    assert pipe.is_fifo()
    assert os.read(end, 100) == b"rows"
    os.close(end)


def test_a_name_may_be_as_long_as_the_file_system_takes_it(tmp_path):
    write_whole(tmp_path / ("x" * 255), "x")
    assert os.listdir(tmp_path) == ["x" * 255]


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("write() failed: No space left on device; writing x; at byte 28672"),
        ValueError("Error while serializing: I/O error: Read-only file system (os error 30)"),
        OSError(122, "Disk quota exceeded", "another name"),
    ],
)
def test_what_a_disk_refuses_names_the_file(tmp_path, error):
    for writing in (whole_file, naming):
        with pytest.raises(OSError, match=r"No space|Read-only|quota") as raised, writing(tmp_path / "x"):
            raise error
        assert raised.value.filename == str(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_other_errors_of_writing_stay_what_they_are(tmp_path):
    with pytest.raises(KeyError, match="bug"), whole_file(tmp_path / "x"):
        raise KeyError("bug")


def values(path, **options):
    wrong = []
    found = read_json_lines(path, lambda value: value, lambda number, error: wrong.append(number), **options)
    return found, wrong


@pytest.mark.parametrize("torn", [b'{"a": 3, "b', b"{", b"\0\0\0", b'{"a": "\xe9'])
def test_a_torn_line_is_dropped_by_the_next_who_writes(tmp_path, torn):
    path = tmp_path / "new" / "x.jsonl"
    GrowingFile(path).add([{"a": 1}, {"a": 2}])
    path.write_bytes(path.read_bytes() + torn)
    assert values(path) == ([{"a": 1}, {"a": 2}], [])
    GrowingFile(path, values(path)[0]).add([{"a": 4}])
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n{"a": 4}\n'


def test_a_last_line_that_only_lacks_its_end_is_as_the_reader_wants_it(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}')
    assert values(path) == ([{"a": 1}, {"a": 2}], [])
    assert values(path, ended=True) == ([{"a": 1}], [])


def test_other_lines_are_named_by_number(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\nnot json\n\xe9\n' + b"[" * 100_000 + b'\n{"a": 2}\n')
    assert values(path) == ([{"a": 1}, {"a": 2}], [2, 3, 4])


def test_lines_are_on_disk_when_they_are_written(tmp_path):
    file = GrowingFile(tmp_path / "x.jsonl", [{"a": 0}])
    for a in (1, 2):
        file.add([{"a": a}])
        assert values(tmp_path / "x.jsonl")[0][-1] == {"a": a}


def test_a_bucket_has_all_lines(bucket):
    path = "gs://bucket/run/x.jsonl"
    GrowingFile(path).add([{"a": 1}])
    file = GrowingFile(path, values(path)[0])
    file.add([{"a": 2}])
    file.add([{"a": 3}])
    assert values(path) == ([{"a": 1}, {"a": 2}, {"a": 3}], [])


def test_a_file_that_was_removed_does_not_begin_anew_with_the_later_lines(tmp_path):
    file = GrowingFile(tmp_path / "x.jsonl", [{"a": 0}])
    (tmp_path / "x.jsonl").unlink()
    with pytest.raises(TrainingError, match=r"x\.jsonl: was removed while it was written"):
        file.add([{"a": 1}])
    assert not (tmp_path / "x.jsonl").exists()


def test_a_folder_that_is_removed_while_a_file_is_written_is_named(tmp_path):
    def removes_the_folder():
        with whole_file(tmp_path / "folder" / "x") as aside:
            aside.write_text("")
            shutil.rmtree(tmp_path / "folder")

    with pytest.raises(TrainingError, match=r"folder/x: was removed while it was written"):
        removes_the_folder()
