"""`import scaling`: its names, the cost of the import, and that every example works as shown."""

import contextlib
import doctest
import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import scaling
from scaling.__main__ import commands
from scaling.api.checks import source_of
from scaling.training import pretraining
from scaling.training.config import TrainConfig
from tests.commands import ROOT, environment
from tests.data.examples import class_folders
from tests.front_door import tiny_run

SOURCE = "scenes?size=16&count=64"
IMAGES = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), np.uint8)


def process(code, **variables):
    done = subprocess.run(
        [sys.executable, *(["-X", "importtime"] if variables.pop("timed", False) else []), "-c", code],
        cwd=ROOT,
        env=environment() | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with runs/tiny."""
    path = tmp_path_factory.mktemp("api")
    tiny_run(path)
    return path


@pytest.fixture(autouse=True)
def within(folder):
    with contextlib.chdir(folder):
        yield


def test_importing_takes_no_time_and_lists_what_there_is():
    done = process("import scaling, json; print(json.dumps([dir(scaling), scaling.__version__]))", timed=True)
    assert not {"jax", "numpy", "absl"} & {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert set(scaling.__all__) <= set(json.loads(done.stdout)[0])
    assert (ROOT / "scaling" / "py.typed").exists()


def test_every_name_is_there_and_says_what_it_does():
    for name in scaling.__all__:
        assert len(getattr(scaling, name).__doc__.splitlines()[0]) > 20, name
    with pytest.raises(AttributeError, match="has no attribute 'slimm'"):
        scaling.slimm  # noqa: B018


def test_a_function_is_not_lost_to_the_command_of_its_name():
    for name in set(commands()) & set(scaling.__all__):
        module = importlib.import_module(f"scaling.{name}")
        assert module.main.flags()
        assert getattr(scaling, name) is not module
        assert getattr(scaling, name).__name__ == name


X = np.eye(3)


def tiny():
    return scaling.load("runs/tiny")


SLOW = ("finetune", "predict", "pretrain", "search")  # compile many programs
FUNCTIONS = [
    pytest.param(name, marks=pytest.mark.long if name in SLOW else ())
    for name in sorted(scaling.__all__)
    if name.islower()
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_example_of_every_function_does_what_it_says(name):
    function = getattr(scaling, name)
    names = {"np": np, "scaling": scaling, "images": IMAGES}
    (example,) = doctest.DocTestFinder(recurse=False).find(function, name, globs=names)
    assert len(example.examples) >= 2
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=said.append)
    assert not said, "".join(said)


def test_loading_and_encoding_say_nothing(folder):
    done = process(
        "import scaling, numpy as np, jax\n"
        "jax.config.update('jax_platforms', 'cpu')\n"
        f"encoder = scaling.load({str(folder / 'runs' / 'tiny')!r})\n"
        "print(encoder, encoder.features(np.full((2, 16, 16, 3), 90, np.uint8)).shape)"
    )
    assert done.stdout.endswith("parameters) (2, 32)\n")
    assert done.stderr == ""


def test_a_cut_is_remembered_by_what_it_looked_at():
    encoder = scaling.load("runs/tiny")
    small = scaling.slim(encoder, 0.5, ordering="svd", recovery="ridge", images="scenes?size=16&count=64")
    (cut,) = small.cuts
    assert (cut.calibration, cut.calibration_images) == ("scenes?size=16&count=64", 64)
    assert scaling.slim(encoder, 0.5).cuts[0].calibration == ""  # the published cut looks at none
    assert scaling.slim(encoder, 0.5, ordering="svd", images=IMAGES).cuts[0].calibration_images == 64
    assert scaling.slim(encoder, 0.5, ordering="svd", images=IMAGES[:40]).cuts[0].calibration_images == 32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scaling.load("nowhere"), "path=nowhere has no folder `checkpoints`"),
        (lambda: scaling.load("runs/tiny", 99), "path=runs/tiny has no checkpoint of step 99"),
        (lambda: tiny().save("runs/tiny"), "path=runs/tiny has checkpoints already"),
        (lambda: scaling.pretrain("finetune.py", "w"), "config: is a config of scaling.finetune; give one of scaling."),
        (lambda: scaling.pretrain({"epochs": 5.0}, "w"), "config: is a config of scaling.finetune; give one of"),
        (
            lambda: scaling.pretrain("slim.py", "w"),
            "is a config of scaling.slim; give one of scaling.train, such as vit",
        ),
        (lambda: scaling.pretrain("sweeps/width.py", "w"), "is a config of scaling.sweep; give one of scaling.train"),
        (lambda: scaling.finetune(tiny(), "vit_b.py", "w"), "is a config of scaling.train; give one of scaling.fine"),
        (
            lambda: scaling.finetune(tiny(), TrainConfig(), "w"),
            "is a config of scaling.train; give one of scaling.fine",
        ),
        (lambda: scaling.finetune(tiny(), "efficiency.py", "w"), "is a config of scaling.efficiency; give one of"),
        (lambda: scaling.finetune(tiny(), {"batch_size": 0}, "w"), "batch_size=0: must be at least 1"),
        (lambda: scaling.pretrain("quickstart.py", "w", {"epochs": 5}), "unknown config field epochs"),
        (
            lambda: scaling.pretrain("quickstart.py", "w", {"init_from": "runs/tiny", "data.source": SOURCE}),
            "; set fields={'model.",
        ),
        (lambda: scaling.load("s3://b/x"), "path=s3://b/x: only local paths and gs://"),
        (lambda: scaling.slim(scaling.load("runs/tiny"), 0.5, recovery="ridge"), "needs calibration images"),
        (lambda: scaling.slim(scaling.load("runs/tiny"), 0.5, ordering="svd", images=IMAGES / 255), "other units"),
        (lambda: tiny().features(IMAGES / 255), "give pixels in the units of the training data, fractions times 255"),
        (lambda: tiny().features(IMAGES / 255, normalised=True), "encoder.normalise gives; multiply fractions by 255"),
        (lambda: scaling.prune(scaling.load("runs/tiny")), "rule=simpler needs unlabelled images"),
        (lambda: scaling.prune(scaling.load("runs/tiny"), [2]), "2"),
        (lambda: scaling.prune(scaling.load("runs/tiny"), [0], recover="linear"), "recover=linear needs unlabelled"),
        (lambda: scaling.prune(scaling.load("runs/tiny"), [0], recover="ridge"), "must be one of none, linear"),
        (lambda: scaling.features(scaling.load("runs/tiny"), "folder:nowhere"), "nowhere"),
        (lambda: scaling.probe(([[1.0]], [0]), ([[1.0]], [0]), probe="svm"), "must be one of knn, linear"),
        (lambda: scaling.probe(([[1.0]], [0]), ([[1.0]], [0]), strength=1), "options of probe='knn'"),
        (lambda: scaling.pretrain("quickstart.py", "w", {"lr": 1}), "lr; did you mean optimizer.base_lr?"),
        (lambda: scaling.pretrain("quickstart.py", "w", {"optimizer.learning_rate": 1}), "did you mean optimizer.base"),
        (lambda: scaling.pretrain("quickstart.py", "w", {"batch": 1}), "did you mean batch_size?"),
        (lambda: scaling.pretrain("quickstart.py", "w", {"data.source": "folder:nowhere"}), "no such folder"),
        (lambda: scaling.finetune(tiny(), "finetune.py:folder:nowhere", "w"), "no such folder"),
        (
            lambda: scaling.finetune(tiny(), "finetune.py", "w", {"data.source": SOURCE}),
            f"the config's own data.split, for another source: take config=finetune.py:{SOURCE}, or set data.split",
        ),
        (
            lambda: scaling.finetune(tiny(), "segment_scenes.py", "w", {"data.source": SOURCE}),
            "has classes of images, but no masks, from which segmentation learns; give images with masks, as pairs:DIR",
        ),
        (
            lambda: scaling.finetune(tiny(), "finetune.py", "w", {"data.source": SOURCE, "data.split": "train[:99]"}),
            "split 'train[:99]': train has only 64 images",
        ),
        (lambda: scaling.finetune(tiny(), "finetune.py", "w", {"epochs": 2.0}), "epochs=2.0; set warmup_epochs too"),
        (lambda: scaling.pretrain("quickstart.py", "w", {"model.widht": 1}), "did you mean model.width"),
        (lambda: scaling.pretrain("quickstart.py", "w", {"steps.x": 1}), "steps.x: steps has no fields"),
        (lambda: scaling.pretrain({"steps": 0}, "w"), "steps=0: must be at least 1"),
        (lambda: scaling.pretrain("quickstrat.py", "w"), "did you mean quickstart.py"),
        (lambda: scaling.finetune(scaling.load("runs/tiny"), "finetune.py", "w", {"epochs": 0.0}), "epochs=0.0"),
        (lambda: scaling.fit_law({"n": [1.0], "loss": [1.0]}, y="loss"), "x=params: there is no such column"),
        (lambda: scaling.fit_law({"params": ["a"], "loss": [1.0]}, y="loss"), "params is not a column of numbers"),
        (lambda: scaling.search(scaling.load("runs/tiny"), "time:3", "w", "scenes"), "budget=time:3: must be KIND"),
        (lambda: scaling.search(scaling.load("runs/tiny"), "flops:0.5", "w", "scenes", axis=1), "did you mean axes"),
        (lambda: scaling.search(scaling.load("runs/tiny"), "flops:2", "w", "scenes"), "set a smaller budget"),
        (lambda: scaling.fit_law("nowhere.jsonl"), "no such file"),
        (lambda: scaling.load(None), "path=None: must be the path"),
        (lambda: scaling.load("runs/tiny", "2"), "step='2': step must be a whole number"),
        (lambda: tiny().save(""), "path='': must be the path"),
        (lambda: tiny().save(None), "path=None: must be the path"),
        (lambda: scaling.pretrain("quickstart.py", None, {"steps": 1}), "workdir=None: must be the path"),
        (lambda: scaling.slim("runs/tiny", 0.5), "encoder='runs/tiny': encoder must be an encoder; scaling.load(path)"),
        (lambda: scaling.finetune("runs/tiny", "finetune.py", "w"), "scaling.load(path) reads one"),
        (lambda: scaling.slim(tiny(), "a"), "width_ratio='a': width_ratio must be a number in (0, 1]"),
        (lambda: scaling.slim(tiny(), 0.5, seed=-1), "seed=-1: seed must be a whole number, 0 or more"),
        (lambda: scaling.slim(tiny(), 0.5, recovery="ridge", images=IMAGES * 0 + 100), "all pixels of each of the 64"),
        (lambda: scaling.slim(tiny(), 0.5, recovery="ridge", images=IMAGES[[0] * 40]), "all 40 images are the same"),
        (lambda: scaling.features(tiny(), IMAGES), "encoder.features(images) encodes an array"),
        (lambda: scaling.features(tiny(), "scenes", bands=1), "bands=1: bands must be a list of bands"),
        (lambda: tiny().features("folder:x"), "scaling.features(encoder, source) reads images in files"),
        (lambda: tiny().features(IMAGES.transpose(0, 3, 1, 2)), "the last axis: give np.moveaxis(images, 1, -1)"),
        (lambda: tiny().features(IMAGES[:, :8]), "resize them, as scaling.features does with images in files"),
        (lambda: tiny().features([IMAGES[0], IMAGES[0, 1:]]), "images: they have different shapes; resize them"),
        (lambda: tiny().features(IMAGES, batch_size=0), "batch_size=0: must be a whole number of images, 1 or more"),
        (lambda: tiny().features(IMAGES, batch_size=2.5), "batch_size=2.5: must be a whole number"),
        (lambda: tiny().normalise(np.full((1, 16, 16, 3), np.nan)), "the images contain NaN"),
        (lambda: scaling.slim(tiny(), 25), "width_ratio=25: must be above 0 and at most 1; 25 % is 0.25"),
        (lambda: scaling.slim(tiny(), 0.5, mode=["heads"]), "mode must be the name of a mode, or names of axes"),
        (lambda: scaling.slim(tiny(), 0.5, images=IMAGES), "ordering=first with recovery=none uses no images"),
        (lambda: scaling.slim(tiny(), 0.5, ordering="svd", images=IMAGES, bands=[0]), "bands=[0]: only for a source"),
        (lambda: scaling.prune(tiny(), images="scenes?size=16", bands=[0, 1, 9]), "scenes?size=16 has bands 0 to 2"),
        (lambda: scaling.slim(tiny(), 0.5, ordering="svd", images="runs/tiny"), "not the working directory of a run"),
        (lambda: scaling.features(tiny(), "folder:runs/tiny"), "folder:runs/tiny: must be a folder of images"),
        (lambda: scaling.load("runs/tiny/checkpoints"), "is inside of a run; give the run, runs/tiny"),
        (lambda: scaling.load("runs/tiny/checkpoints/60"), "give the run, runs/tiny, and step=60"),
        (lambda: scaling.probe(X, [0, 1, 1]), "train must be features with their labels: scaling.probe((features, "),
        (lambda: scaling.prune(tiny(), 2), "keep=2: keep must be a list of blocks"),
        (lambda: scaling.prune(tiny(), "01"), "keep='01': keep must be a list of blocks"),
        (lambda: scaling.prune(tiny(), [0], estimator="x"), "estimator must be one of debiased, biased"),
        (lambda: scaling.prune(tiny(), [0], rule="nonsense"), "so there is nothing to choose; leave out rule"),
        (lambda: scaling.prune(tiny(), [0], blocks=1, images=IMAGES), "leave out blocks, images"),
        (
            lambda: scaling.prune(tiny(), rule="keep"),
            "must be one of simpler, shortgpt, angular, cka_interval; or name",
        ),
        (lambda: scaling.prune(tiny(), blocks=2, images="nowhere"), "blocks=2: simpler chooses the number of blocks"),
        (lambda: scaling.prune(tiny(), rule="shortgpt", blocks=1, images=IMAGES * 0 + 100), "all pixels of each"),
        (
            lambda: scaling.probe((X, [0, 0, -1]), (X, [0, 1, 1])),
            "train: 1 of 3 images have no label (-1), first row 2",
        ),
        (lambda: scaling.probe((X, [0, 1, 1]), (X, [1, 1, 1])), "test: all 3 images have the same class"),
        (lambda: scaling.probe((X, [0, 1, 1]), (X, [0, 1, 1]), k=2.5), "k=2.5: k must be a whole number"),
    ],
)
def test_what_is_wrong_is_an_exception_of_one_line(call, message):
    with pytest.raises(scaling.UserError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not os.path.exists("w")


def test_class_folders_without_the_split_of_a_recipe_of_masks_are_answered_with_sources_of_masks(tmp_path):
    root = class_folders(tmp_path / "tiles", 3)
    for test_split in ("test[:9]", "train[:9]"):
        with pytest.raises(scaling.UserError, match=r"has classes of images, but no masks, .* as pairs:DIR"):
            scaling.finetune(tiny(), f"segment.py:folder:{root}", tmp_path / "w", {"test_split": test_split})


def test_blocks_that_are_gone_can_have_their_part_done():
    encoder = scaling.load("runs/tiny")
    whole, *rest = (
        scaling.features(e, "scenes?size=16&count=40", split="test").features
        for e in (
            encoder,
            scaling.prune(encoder, [0], recover="linear", images="scenes?size=16&count=64"),
            scaling.prune(encoder, [0]),
        )
    )
    repaired, cut = (np.linalg.norm(x - whole) for x in rest)
    assert repaired < 0.8 * cut


def test_few_images_are_said_to_be_few(caplog):
    scaling.prune(tiny(), rule="shortgpt", blocks=1, images=IMAGES)
    assert (
        "images: 64 are too few to check whether other images lead to the same decision; give 240 or more"
        in caplog.text
    )


def test_a_path_is_that_of_a_folder(tmp_path):
    root = class_folders(tmp_path / "set", 3)
    by_path, by_spec = (scaling.features(tiny(), source) for source in (root, f"folder:{root}"))
    np.testing.assert_array_equal(by_path.features, by_spec.features)


def test_a_field_may_change_in_python_as_in_the_command(monkeypatch):
    seen = []
    monkeypatch.setattr(pretraining, "pretrain", lambda c, folder, change, watch: seen.append(change))
    scaling.pretrain("quickstart.py", "runs/tiny", change=["seed"])
    assert seen == [["seed"]]


def test_whole_numbers_of_every_type_are_the_same_pixels(tmp_path):
    encoder = tiny()
    wanted = encoder.features(IMAGES[:4])
    for dtype in ("int64", "uint32"):
        np.testing.assert_allclose(encoder.features(IMAGES[:4].astype(dtype)), wanted, atol=1e-5)
        (tmp_path / dtype).mkdir()
        for i, image in enumerate(IMAGES[:4]):
            np.save(tmp_path / dtype / f"{i}.npy", image.astype(dtype))
        found = scaling.features(encoder, tmp_path / dtype)
        order = [int(name[0]) for name in found.names]
        np.testing.assert_allclose(found.features, wanted[order], atol=1e-5)


def test_a_folder_is_its_path_and_features_are_shown_in_a_line(tmp_path, caplog):
    root, encoder = class_folders(tmp_path / "tiles", 3), tiny()
    found = [scaling.features(encoder, source) for source in (f"folder:{root}", str(root), root)]
    assert [repr(one) for one in found] == ["Features(6 images, 32 features, 2 classes)"] * 3
    np.testing.assert_array_equal(found[0].features, found[1].features)
    with contextlib.chdir(tmp_path):
        (tmp_path / "scenes").mkdir()
        assert source_of("scenes") == "scenes"
        assert source_of("tiles") == "folder:tiles"
    assert caplog.messages == ["source=scenes: the built-in source of that name is read; the folder is folder:scenes"]
