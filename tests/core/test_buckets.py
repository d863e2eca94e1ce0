"""An answer that a bucket does not give is an error with the path, which says whether a new start may help."""

import pytest
import requests
from etils import epath
from google.auth import exceptions as auth

from scaling.core.buckets import bucket_error
from scaling.core.errors import TemporaryError, TrainingError
from scaling.core.paths import check_folder
from tests.bucket import Fault
from tests.commands import call, command


def error_of(act):
    try:
        act()
    except Exception as error:
        return bucket_error(error)
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    "act",
    [
        lambda path: path.read_text(),
        lambda path: path.exists(),
        lambda path: path.write_text("x"),
        lambda path: list(path.iterdir()),
    ],
)
@pytest.mark.parametrize("code", [400, 403])
def test_what_is_refused_names_path_and_answer(bucket, act, code):
    bucket.put("run/config.json", b"{}")
    bucket.refuses = code
    error = error_of(lambda: act(epath.Path("gs://bucket/run/config.json")))
    assert isinstance(error, TrainingError)
    assert "gs://bucket/run/config.json: is refused by its server" in str(error)
    assert "refused" in str(error)


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (auth.RefreshError("Reauthentication is needed"), TrainingError),
        (auth.DefaultCredentialsError("no credentials"), TrainingError),
        (auth.TransportError("no route to the host"), TemporaryError),
        (ValueError("Bad Request: run/config.json\ninvalid argument"), TrainingError),
        (requests.exceptions.ProxyError(), TemporaryError),
        (ValueError("a bug"), type(None)),
    ],
)
def test_credentials_are_refused_and_connections_temporary(bucket, monkeypatch, raised, kind):
    def fails(*_, **__):
        raise raised

    bucket.put("run/config.json", b"{}")
    monkeypatch.setattr("gcsfs.core.GCSFileSystem._call", fails)
    assert type(error_of(lambda: epath.Path("gs://bucket/run/config.json").read_text())) is kind


def test_an_error_of_the_same_library_elsewhere_is_none_of_a_bucket():
    with pytest.raises(requests.exceptions.RequestException) as error:
        requests.get("http://localhost:1/", timeout=1)
    assert bucket_error(error.value) is None


def test_what_may_pass_is_temporary(bucket, monkeypatch):
    monkeypatch.setattr("gcsfs.retry.errs", set())  # at once, without retrying
    bucket.refuses = 503
    path = "gs://bucket/run/config.json"
    error = error_of(lambda: epath.Path(path).read_text())
    assert (type(error), str(error)) == (
        TemporaryError,
        f"{path}: its server does not respond (refused, 503); start the same command again",
    )
    with pytest.raises(TemporaryError, match=r"gs://bucket/run: its server does not respond"):
        check_folder("workdir", "gs://bucket/run")


def test_a_command_says_it_in_one_line(bucket, monkeypatch, tmp_path):
    monkeypatch.setattr("gcsfs.retry.errs", set())
    bucket.put("data/manifest.json", b"{}")
    bucket.fault = lambda verb, path: Fault(status=503) if "alt=media" in path else None
    done = call(command("prepare", source="arrayrecord:gs://bucket/data", output=tmp_path / "out"))
    assert (done.returncode, done.stderr) == (
        75,
        "error: gs://bucket/data/manifest.json: its server does not respond (refused, 503); start the same command "
        "again\n",
    )


def test_an_answer_that_is_cut_short_is_no_bug(bucket):
    bucket.put("run/config.json", b"{}")
    bucket.fault = lambda verb, path: Fault(short=True)
    error = error_of(lambda: epath.Path("gs://bucket/run/config.json").stat())
    assert isinstance(error, TemporaryError)
    assert "gs://bucket/run/config.json: its server does not respond" in str(error)


def test_other_errors_are_not_of_a_bucket(bucket, tmp_path):
    assert bucket_error(ValueError("503")) is None
    assert error_of(lambda: (tmp_path / "x").read_text()) is None
    assert error_of(lambda: epath.Path("gs://bucket/nothing").read_text()) is None
