"""A path that cannot be written to is reported before anything is computed."""

import fcntl
import os

import pytest

from scaling.core.errors import TrainingError, UserError
from scaling.core.files import write_whole
from scaling.core.paths import check_file, check_folder, make_folder, unmade_on_failure, user_path
from scaling.parallel.claim import Claim


def test_folders_are_made_and_left_as_they_are(tmp_path):
    folder = tmp_path / "a" / "b"
    assert check_folder("output", folder) == folder
    (folder / "rows.jsonl").write_text("kept")
    check_folder("output", folder)
    assert check_file("json", folder / "rows.jsonl").read_text() == "kept"
    assert [file.name for file in folder.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("path", ["/proc/none", "file/below"])
def test_a_folder_that_cannot_be_written_to(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for check, name in ((check_folder, path), (check_file, f"{path}/x.json")):
        with pytest.raises(UserError, match=rf"--output={name} cannot be written to \(.+\); choose another one"):
            check("output", name)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match=rf"--json={tmp_path} is a folder; give a file"):
        check_file("json", tmp_path)


def test_a_bucket_that_is_refused(bucket):
    bucket.refuses = 403
    with pytest.raises(UserError, match=r"--workdir=gs://bucket/run cannot be written to \(.+\); choose another one"):
        check_folder("workdir", "gs://bucket/run")


def test_the_home_is_written_as_in_a_shell(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(user_path("workdir", "~/run")) == f"{tmp_path}/run"
    for plain in ("run~1", "/a/~/b", "gs://bucket/~"):
        assert str(user_path("workdir", plain)) == plain


def test_a_folder_may_be_written_as_a_source(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    given = ("folder:tiles", "folder:~/tiles", "folder:gs://bucket/tiles", "folder:")
    assert [str(user_path("input", text)) for text in given] == ["tiles", f"{tmp_path}/tiles", "gs://bucket/tiles", "."]
    (tmp_path / "folder:tiles").mkdir()
    assert str(user_path("input", "folder:tiles")) == "folder:tiles"


@pytest.mark.parametrize("path", ["s3://b/x", "abfs://c@a/x", "https://x.org/y", "file:///x", "S3://b"])
def test_what_is_neither_here_nor_in_a_bucket_of_google_is_refused(path):
    with pytest.raises(UserError, match=rf"--input={path}: only local paths and gs://… are read and written"):
        user_path("input", path)


@pytest.mark.parametrize("path", ["lr[1e-3]", "a*", "what?"])
def test_a_folder_of_checkpoints_is_no_pattern(tmp_path, path):
    with pytest.raises(UserError, match="checkpoints cannot be kept in a path with"):
        check_folder("workdir", tmp_path / path, checkpoints=True)
    assert not (tmp_path / path).exists()
    assert check_folder("output", tmp_path / path).is_dir()  # of rows, features or images
    assert check_file("output", tmp_path / path / "features.npy").parent.is_dir()


@pytest.mark.parametrize(
    "path", ["a b", "it's", 'q"', "é ü", "%20", "#1", "{x}", "~", "a\nb", "$HOME", "a&b", "(1)", "-x"]
)
def test_other_characters_are_like_letters(tmp_path, path):
    assert check_folder("workdir", tmp_path / path).is_dir()


def fails(act):
    """Acts, and then finds something wrong."""

    def act_and_fail():
        with unmade_on_failure():
            act()
            raise UserError("wrong data")

    with pytest.raises(UserError, match="wrong data"):
        act_and_fail()


def fails_with_claim(folder, act):
    def act_and_fail():
        with Claim(check_folder("workdir", folder)):
            act()
            raise UserError("wrong data")

    fails(act_and_fail)


def test_where_nothing_comes_of_it_no_folder_is_left(tmp_path):
    fails(lambda: check_file("json", tmp_path / "c" / "rows.jsonl"))
    fails(lambda: check_folder("output", tmp_path / "d"))
    run = tmp_path / "a" / "b"
    fails_with_claim(run, lambda: make_folder(run / "checkpoints"))
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_or_was_written_stays(tmp_path):
    for name in ("mine", "used"):
        (tmp_path / name).mkdir()
    (tmp_path / "used" / ".claim").write_text("")  # of a run that was killed before it saved anything
    fails_with_claim(tmp_path / "mine", lambda: None)
    fails_with_claim(tmp_path / "used", lambda: None)
    fails_with_claim(tmp_path / "new", lambda: write_whole(tmp_path / "new" / "rows.jsonl", "row"))
    with unmade_on_failure():
        check_folder("workdir", tmp_path / "empty")
    left = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*"))
    assert left == ["empty", "mine", "new", "new/.claim", "new/rows.jsonl", "used", "used/.claim"]


def test_one_process_at_a_time_writes_to_a_folder(tmp_path):
    with Claim(tmp_path), pytest.raises(UserError, match=rf"written to by another process .*{os.getpid()}"):
        Claim(tmp_path).__enter__()
    with Claim(tmp_path) as free:
        free.check()


@pytest.mark.parametrize("name", ["flock", "fstat"])
def test_a_claim_that_is_given_up_meanwhile_is_taken(tmp_path, monkeypatch, name):
    """The other process removes the file after it has refused the lock, or before it is looked at again."""
    module = fcntl if name == "flock" else os
    real, file = getattr(module, name), tmp_path / ".claim"

    def given_up(*arguments):
        monkeypatch.setattr(module, name, real)
        file.unlink()
        if name == "flock":
            raise BlockingIOError
        return real(*arguments)

    monkeypatch.setattr(module, name, given_up)
    with Claim(tmp_path):
        assert getattr(module, name) is real
        assert str(os.getpid()) in file.read_text()


def test_a_disk_too_full_for_a_claim_is_named_and_blocks_nobody(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left") as raised:
            Claim(tmp_path).__enter__()
    assert raised.value.filename == str(tmp_path / ".claim")
    with Claim(tmp_path) as claim:
        claim.check()


def test_in_a_bucket_the_newest_takes_over(bucket):
    with Claim("gs://bucket/run") as old:
        old.check()
        with Claim("gs://bucket/run") as new:
            new.check()
            with pytest.raises(TrainingError, match="is now used by another process"):
                old.check()


def test_what_a_command_reads_is_not_replaced(tmp_path):
    rows, folder = tmp_path / "rows.jsonl", tmp_path / "runs"
    folder.mkdir()
    rows.write_text("")
    (tmp_path / "link.html").hardlink_to(rows)
    (tmp_path / "soft").symlink_to(folder)
    for name in ("rows.jsonl", "config.json", "report.html"):
        (folder / name).write_text("")
    reads = {"an input": [None, rows, folder]}
    for wrong in (rows, tmp_path / "runs" / ".." / "rows.jsonl", tmp_path / "link.html"):
        with pytest.raises(UserError, match=r"(rows.jsonl|link.html) is an input, which would be lost"):
            check_file("output", wrong, reads)
    for wrong in (folder / "rows.jsonl", tmp_path / "soft" / "rows.jsonl", folder / "config.json"):
        with pytest.raises(UserError, match="is a file in an input, which would be lost; choose another file"):
            check_file("output", wrong, reads)
    for right in (folder / "report.html", folder / "new.csv", tmp_path / "report.html"):
        assert check_file("output", right, reads) == right
