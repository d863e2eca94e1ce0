"""What cannot be written to is said before anything is computed."""

import pytest

from scaling.errors import UserError
from scaling.paths import check_file, check_folder


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
