"""Fine-tuning through the real command line: to the end, killed and gone on, and read again."""

import signal
import time
from collections import Counter

import numpy as np
import pytest
import tifffile
from PIL import Image

from scaling.core.rows import read_rows
from scaling.data.sources.registry import open_source
from tests.commands import call, command, error_of, finish, finish_together, free_port, rows_of, run, start

FIELDS = {
    "epochs": 4.0,
    "warmup_epochs": 1.0,
    "batch_size": 16,
    "checkpoint_every": 3,
    "log_every": 1,
    "data.source": "scenes?size=16",
    "data.split": "train[:80]",
    "test_split": "test[:60]",
    "width_ratio": 0.5,
}


# UperNet with batch norm, and blocks with windows of 3 on a grid of 4 x 4
SEGMENTING = {
    "width_ratio": 1.0,
    "data.source": "scenes?size=16&targets=mask",
    "task.channels": 16,
    "task.auxiliary_channels": 8,
    "model.window": 3,
    "model.global_blocks": "(2,)",
    "mesh.min_shard_elements": 0,
}
DETECTING = {
    "width_ratio": 1.0,
    "image_size": 32,
    "data.source": "scenes?size=32&targets=boxes",
    "task.channels": 16,
    "task.hidden": 16,
    "task.proposals": 20,
    "task.roi_samples": 8,
    "task.most": 16,
    "mesh.min_shard_elements": 0,
}
DENSE = {"segment_scenes.py": SEGMENTING, "detect.py": DETECTING}
COMPUTED = ("loss", "auxiliary_loss", "rpn_boxes_loss", "classes_loss", "grad_norm", "eval_loss")


def finetune(checkpoint, workdir, config="finetune.py", flags=None, **fields):
    fields = {f"config.{name}": value for name, value in {**FIELDS, **fields}.items()}
    return command("finetune", config=config, checkpoint=checkpoint, workdir=workdir, **fields, **(flags or {}))


def killed_after(arguments, workdir, rows):
    process = start(arguments)
    while process.poll() is None and (not (workdir / "metrics.jsonl").exists() or len(rows_of(workdir)) < rows):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert finish(process).returncode == -signal.SIGKILL


def assert_computed_alike(ours, theirs, names, rtol=0.0, first=None):
    for one, other in list(zip(rows_of(ours), rows_of(theirs), strict=True))[:first]:
        expected = {name: other[name] for name in ("step", *names) if name in other}
        found = {name: one[name] for name in ("step", *names) if name in one}
        assert found == (pytest.approx(expected, rel=rtol) if rtol else expected)


@pytest.fixture(scope="module")
def tuned(uninterrupted_run, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finetune") / "run"
    done = run(finetune(uninterrupted_run[0], workdir))
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def test_a_cut_encoder_is_trained_and_scored(tuned):
    workdir, printed = tuned
    assert "fine-tuning, accuracy on scenes?size=16, 80 training images, 60 test images" in printed
    rows = {row.metric: row for row in read_rows(workdir / "rows.jsonl")}
    assert set(rows) == {"accuracy", "macro_accuracy", "classes"}  # the last are those of the test images
    assert rows["accuracy"].outcomes == rows["macro_accuracy"].outcomes != ""
    assert f"{rows['accuracy'].value:.1%}" in printed
    assert rows["accuracy"].low <= rows["accuracy"].value <= rows["accuracy"].high
    assert 0 < rows["accuracy"].compute < 1
    assert [row["step"] for row in rows_of(workdir)] == list(range(1, 21))
    assert "eval_accuracy" in rows_of(workdir)[-1]
    _, *matrix = [line.split(",") for line in (workdir / "confusion.csv").read_text().splitlines()]
    right = sum(int(row[k + 1]) for k, row in enumerate(matrix))
    assert sum(int(x) for row in matrix for x in row[1:]) == 60
    assert right / 60 == pytest.approx(rows["accuracy"].value)
    assert all(f"\n  {row[0]} " in printed for row in matrix)
    assert (workdir / "figures" / "confusion.png").exists()
    _, *wrong = [line.split(",") for line in (workdir / "wrong.csv").read_text().splitlines()]
    assert len(wrong) == 60 - right
    assert f"wrong    {len(wrong)} of 60 images, by name in {workdir / 'wrong.csv'}" in printed
    test = open_source("scenes?size=16", "test[:60]")
    truth = {test.name(i): test.info.classes[test[i]["label"]] for i in range(60)}
    assert all(truth[name] == label != said for name, label, said in wrong)
    taken = Counter((label, said) for _, label, said in wrong)
    names = [row[0] for row in matrix]
    assert taken == {
        (row[0], names[k]): int(x) for row in matrix for k, x in enumerate(row[1:]) if names[k] != row[0] and int(x)
    }


@pytest.mark.long
def test_what_was_scored_is_what_predicts_where_a_run_ends_early(uninterrupted_run, tmp_path):
    early = {"eval_every": 2, "early_stopping": 1, "checkpoint.best": "eval_loss"}
    done = run(finetune(uninterrupted_run[0], tmp_path / "run", **early))
    assert done.returncode == 0, done.stderr
    best = tmp_path / "run" / "best"
    assert f"next     python -m scaling.predict --checkpoint={best} " in done.stdout
    assert "the best by eval_loss" in done.stderr
    source = open_source("scenes?size=16", "test")
    np.save(tmp_path / "0.npy", source[0]["image"])
    predicted = call(command("predict", checkpoint=best, input=tmp_path / "0.npy", output=tmp_path / "told"))
    assert predicted.returncode == 0, predicted.stderr
    classes = (tmp_path / "told" / "predictions.csv").read_text().splitlines()[0]
    assert classes == "file,class," + ",".join(f"p_{name}" for name in source.info.classes)


@pytest.mark.long
def test_killed_at_any_moment_it_goes_on_to_the_last_bit(uninterrupted_run, tuned, tmp_path):
    workdir = tmp_path / "run"
    killed_after(finetune(uninterrupted_run[0], workdir), workdir, 8)
    assert run(finetune(uninterrupted_run[0], workdir)).returncode == 0
    assert_computed_alike(workdir, tuned[0], ("loss", "grad_norm", "param_norm", "eval_loss", "eval_accuracy"))
    assert [r.value for r in read_rows(workdir / "rows.jsonl")] == [r.value for r in read_rows(tuned[0] / "rows.jsonl")]


@pytest.mark.long
class TestDense:
    @pytest.fixture(scope="class", params=DENSE)
    def learn(self, request, uninterrupted_run):
        def arguments(workdir, **flags):
            return finetune(uninterrupted_run[0], workdir, request.param, flags, **DENSE[request.param])

        return arguments

    @pytest.fixture(scope="class")
    def whole(self, learn, tmp_path_factory):
        workdir = tmp_path_factory.mktemp("dense") / "run"
        done = run(learn(workdir))
        assert done.returncode == 0, done.stderr
        losses = [row["loss"] for row in rows_of(workdir)]
        assert losses[-1] < losses[0]
        return workdir

    def scores(self, workdir):
        return {row.metric: row.value for row in read_rows(workdir / "rows.jsonl")}

    def test_killed_it_goes_on_to_the_last_bit(self, learn, whole, tmp_path):
        killed_after(learn(tmp_path / "run"), tmp_path / "run", 8)
        assert run(learn(tmp_path / "run")).returncode == 0
        assert_computed_alike(tmp_path / "run", whole, (*COMPUTED, "param_norm", "eval_accuracy"))
        assert self.scores(tmp_path / "run") == self.scores(whole)

    def test_two_processes_compute_what_one_does_on_the_same_mesh(self, learn, whole, tmp_path):
        """Sums are rounded differently, so that after some steps a proposal near a threshold is another one."""
        one, two, mesh = tmp_path / "one", tmp_path / "two", {"config.mesh.tensor": 2}
        finish_together([start(learn(one, **mesh), devices=8)])
        together = {"coordinator": f"localhost:{free_port()}", "processes": 2, **mesh}
        finish_together([start(learn(two, process=k, **together), devices=4) for k in range(2)])
        assert_computed_alike(two, one, COMPUTED, rtol=1e-5, first=1)
        for other in (one, whole):
            assert_computed_alike(two, other, COMPUTED, rtol=2e-2)
            assert self.scores(two) == pytest.approx(self.scores(other), abs=0.02)


def test_a_fine_tuned_encoder_gives_features(tuned, tmp_path):
    x, y = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(x, np.zeros((2, 16, 16, 3), np.float32))
    done = call(command("features", checkpoint=tuned[0], input=x, output=y))
    assert done.returncode == 0, done.stderr
    assert np.load(y).shape == (2, 32)


def test_wrong_input_is_one_line(uninterrupted_run, tmp_path):
    for flags, message in (
        ({"checkpoint": uninterrupted_run[0]}, "give --checkpoint=DIR, --config=FILE and --workdir=DIR"),
        (
            {"config": "quickstart.py", "checkpoint": uninterrupted_run[0], "workdir": tmp_path},
            "--config: is a config of scaling.train; give one of scaling.finetune, such as finetune.py",
        ),
    ):
        assert message in error_of(call(command("finetune", **flags)), 2)
    for fields, message in (
        ({"width_ratio": 2.0}, "width_ratio=2.0: must be above 0 and at most 1"),
        ({"model.depth": 3}, "model.depth follows from the checkpoint"),
        ({"epoch": 3}, "did you mean epochs?"),
    ):
        assert message in error_of(call(finetune(uninterrupted_run[0], tmp_path / "run", **fields)), 2)


def folder_of_pairs(root, split="train"):
    """Three images of 20 x 24 pixels and their masks of two classes."""
    rng = np.random.default_rng(0)
    for i in range(3):
        for kind, array in (("images", rng.integers(256, size=(20, 24, 3))), ("masks", rng.integers(2, size=(20, 24)))):
            file = root / split / kind / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(file)
    (root / "classes.csv").write_text("index,name\n0,water\n1,road\n")
    return root


def mask(array):
    return lambda root: Image.fromarray(np.asarray(array, np.uint8)).save(root / "train/masks/1.png")


def four_bands(root):
    for split in ("train", "test"):
        for i in range(3):
            (root / split / f"images/{i}.png").unlink()
            tifffile.imwrite(root / split / f"images/{i}.tif", np.zeros((20, 24, 4), np.uint8), photometric="rgb")


def unlabelled(split):
    def spoil(root):
        for i in range(3):
            Image.fromarray(np.full((20, 24), 255, np.uint8)).save(root / split / f"masks/{i}.png")

    return spoil


LABELS = np.zeros((20, 24)) + [0, 0, 0, 1, 1, 7] * 4


@pytest.mark.parametrize(
    ("spoil", "spec", "message"),
    [
        (
            mask(np.zeros((20, 24, 3))),
            "pairs:{}",
            "1.png: has 3 channels, not one label a pixel; give the colour of each",
        ),
        (
            mask(LABELS),
            "pairs:{}",
            "values beyond 2 classes and ignored 255: 7 (80 pixels); "
            "all of its labels: 0 (240 pixels), 1 (160 pixels), 7 (80 pixels)",
        ),
        (mask(np.zeros((24, 20))), "pairs:{}", "its mask is uint8 [24, 20], the image 20 x 24 pixels"),
        (
            lambda root: (root / "train/masks/1.png").unlink(),
            "pairs:{}",
            "1 of 3 images have no mask of the same name, first 1.png",
        ),
        (lambda root: None, "pairs:{}?classes=water,,road", "every class needs a different name"),
        (lambda root: None, "loveda:{}", "no folders Train, Val or Test there; give the folder that contains them"),
        (four_bands, "pairs:{}", "has 4 bands, but the model takes 3 bands"),
        (
            unlabelled("train"),
            "pairs:{}",
            "split train: all pixels of its 3 masks have the ignored label 255; label some, or declare another",
        ),
        (unlabelled("test"), "pairs:{}", "split test: all pixels of its 3 masks have the ignored label 255"),
    ],
    ids=["three channels", "labels", "size", "missing", "name", "loveda", "bands", "ignored", "ignored test"],
)
def test_masks_that_do_not_fit_are_one_line_before_anything_is_computed(
    uninterrupted_run, tmp_path, monkeypatch, spoil, spec, message
):
    monkeypatch.setattr("scaling.tasks.finetuning.OpenRun", lambda *args: pytest.fail("a run was opened"))
    root = folder_of_pairs(tmp_path / "set")
    spoil(folder_of_pairs(root, "test") and root)
    config = f"segment.py:{spec.format(root)}"
    done = call(command("finetune", config=config, checkpoint=uninterrupted_run[0], workdir=tmp_path / "run"))
    assert message in error_of(done, 2)
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
