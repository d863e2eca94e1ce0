"""The process beside the training on every worker: logs, limits, and the deletion of the slice without a laptop."""

import subprocess
import sys
import threading
import time

import pytest

from tpu.cloud import keep as keeping
from tpu.cloud.keep import LATE, SOON, UPLOAD, Keeper, grace


@pytest.mark.parametrize(
    ("code", "stopped", "over", "when", "seconds"),
    [
        (0, False, False, "end", SOON),
        (3, False, False, "end", SOON),
        (75, False, False, "end", LATE),  # somebody may start it again
        (143, True, False, "end", SOON),
        (0, False, False, "done", SOON),
        (3, False, False, "done", None),
        (0, False, False, "never", None),
        (143, False, True, "never", SOON),  # a limit is a limit
    ],
)
def test_when_worker_0_deletes_its_slice(code, stopped, over, when, seconds):
    assert grace(code, stopped, over, when) == seconds


SAVES = "sys.exit(143)"
PROGRAM = (
    "import signal, sys, time; signal.signal(15, lambda *_: {}); print('up', flush=True); time.sleep({}); sys.exit({})"
)


def keep(
    folder, seconds, worker="0", limit=0.0, when="end", logs="", delete=("touch", "{}/deleted"), asked=SAVES, code=0
):
    """Keeps a process that runs so long; the pauses before the slice is deleted."""
    program = PROGRAM.format(asked, seconds, code)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    for name, text in (("pid", process.pid), ("attempt", "first"), ("limit", limit), ("log", "step 1\nstep 2\n")):
        (folder / name).write_text(f"{text}\n")
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        time.sleep(min(seconds, 0.05))
        if process.poll() is not None and not (folder / "result").exists():
            (folder / "result").write_text(f"{process.returncode}\n")  # as job.sh does

    Keeper(folder, worker, logs, [word.format(folder) for word in delete], when, every=0.05).run(sleep)
    return [each for each in pauses if each > 1]


def test_a_closed_laptop_costs_nothing_after_the_end(tmp_path):
    assert keep(tmp_path, 0.2) == [SOON]
    assert (tmp_path / "deleted").exists()


def test_other_workers_delete_nothing(tmp_path):
    assert keep(tmp_path, 0.2, worker="1") == []
    assert not (tmp_path / "deleted").exists()


def test_at_its_limit_it_saves_and_ends_whatever_was_wished(tmp_path):
    assert keep(tmp_path, 60, limit=time.time() + 0.3, when="never") == [SOON]
    assert (tmp_path / "over").exists()
    assert (tmp_path / "result").read_text() == "143\n"
    assert (tmp_path / "deleted").exists()


def test_the_log_and_the_exit_code_of_each_worker_and_start_are_kept(tmp_path, bucket):
    keep(tmp_path, 0.2, worker="3", logs="gs://bucket/run/logs")
    assert bucket.read("run/logs/first/3.log") == b"step 1\nstep 2\n\n"
    assert bucket.read("run/logs/first/3.result") == b"0\n"


def test_a_bucket_that_refuses_the_log_ends_nothing(tmp_path, bucket, capsys):
    bucket.refuses = 400
    keep(tmp_path, 0.2, logs="gs://bucket/run/logs")
    assert "log could not be kept in gs://bucket/run/logs/first" in capsys.readouterr().out
    assert (tmp_path / "deleted").exists()


def test_a_command_that_deletes_and_hangs_is_given_again(tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "DELETING", 0.3)
    hangs_once = "[ -f {0}/tried ] && exec touch {0}/deleted; touch {0}/tried; sleep 60"
    assert keep(tmp_path, 0.1, delete=("bash", "-c", hangs_once)) == [SOON, 60]
    assert (tmp_path / "deleted").exists()


def test_a_bucket_that_does_not_answer_holds_up_neither_limit_nor_deletion(tmp_path, monkeypatch):
    answers = threading.Event()
    monkeypatch.setattr(keeping.epath.Path("gs://bucket").__class__, "mkdir", lambda *_, **__: answers.wait(60))
    monkeypatch.setattr(keeping, "ENOUGH", 0.1)
    assert keep(tmp_path, 60, limit=time.time() + 0.3, logs="gs://bucket/run/logs") == [SOON]
    assert (tmp_path / "result").read_text() == "143\n"
    assert (tmp_path / "deleted").exists()
    answers.set()


def test_an_upload_that_hangs_does_not_keep_the_last_one_from_the_bucket(tmp_path, bucket, monkeypatch):
    answers, folder = threading.Event(), keeping.epath.Path("gs://bucket").__class__
    makes, calls = folder.mkdir, []

    def mkdir(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 1:  # only the first request is never answered
            answers.wait(60)
        return makes(*arguments, **options)

    monkeypatch.setattr(folder, "mkdir", mkdir)
    monkeypatch.setattr(keeping, "ENOUGH", 2.0)
    keep(tmp_path, 0.5, logs="gs://bucket/run/logs")
    answers.set()
    assert bucket.read("run/logs/first/0.log") == b"step 1\nstep 2\n\n"
    assert bucket.read("run/logs/first/0.result") == b"0\n"


def test_a_limit_that_is_changed_while_the_job_runs_is_kept(tmp_path):
    threading.Timer(0.3, lambda: (tmp_path / "limit").write_text("1\n")).start()
    assert keep(tmp_path, 60, limit=time.time() + 600) == [SOON]


def test_a_save_that_hangs_at_the_limit_is_not_paid_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "SAVED", 0.3)
    assert keep(tmp_path, 60, limit=time.time() + 0.3, asked="time.sleep(60)") == [SOON]
    assert (tmp_path / "result").read_text() == "-9\n"
    assert (tmp_path / "log").read_text().endswith("the job had not ended 0 seconds after its limit, and was killed\n")
    assert (tmp_path / "deleted").exists()


def test_a_job_that_ends_in_the_second_of_its_limit_is_deleted_like_any_other(tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "alive", lambda pid: not (tmp_path / "result").exists())  # as seen a moment earlier
    assert keep(tmp_path, 0, limit=1, asked="None") == [SOON]
    assert (tmp_path / "deleted").exists()


@pytest.mark.parametrize("when", ["done", "never"])
def test_a_slice_that_stays_after_its_job_is_deleted_at_its_limit(tmp_path, when):
    limit = time.time() + 1.5
    threading.Timer(0.5, lambda: (tmp_path / "limit").write_text(f"{limit}\n")).start()
    keep(tmp_path, 0, limit=time.time() + 900, when=when, code=1)
    assert (tmp_path / "deleted").stat().st_mtime == pytest.approx(limit, abs=0.5)


def test_without_a_limit_it_stays(tmp_path):
    assert keep(tmp_path, 0, when="never") == []
    assert not (tmp_path / "deleted").exists()


def test_the_limit_is_kept_while_somebody_may_start_a_job_again(tmp_path):
    pauses = keep(tmp_path, 0, limit=time.time() + 900, code=75)
    assert SOON < sum(pauses) <= 900 < LATE


def test_a_slice_that_waits_for_its_deletion_gives_signs_of_life(tmp_path, bucket):
    pauses, name = [], "run/logs/first/0.kept"

    def sleep(seconds):
        pauses.append(seconds)
        deadline = time.monotonic() + 60
        while UPLOAD in {thread.name for thread in threading.enumerate()} and time.monotonic() < deadline:
            time.sleep(0.01)  # the object is there before the thread ends; until then no other upload begins
        del bucket.objects[name]  # the next pause begins with another

    for file, text in (("pid", 2**30), ("attempt", "first"), ("result", 1)):
        (tmp_path / file).write_text(f"{text}\n")
    Keeper(tmp_path, "0", "gs://bucket/run/logs", ["true"], "end").run(sleep)
    assert pauses == [SOON] * round(LATE / SOON)


def test_a_full_disk_does_not_keep_the_slice(tmp_path, monkeypatch):
    def touch(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeping.Path, "touch", touch)
    assert keep(tmp_path, 60, limit=time.time() + 0.3, when="never") == [SOON]
    assert (tmp_path / "deleted").exists()


def test_an_exit_code_that_is_just_being_written_is_waited_for(tmp_path):
    threading.Timer(0.6, lambda: (tmp_path / "result").write_text("0\n")).start()
    (tmp_path / "result").touch()  # the shell makes the file before it writes
    assert keep(tmp_path, 0.1, when="done") == [SOON]
