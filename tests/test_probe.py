"""The probe prints what the features are worth beside what the pixels are worth."""

import json
import re

import pytest

from tests.commands import command, error_of, run

SCENES = "scenes?size=16&count=96"


def probe(workdir, *arguments, **flags):
    done = run(command("probe", *arguments, checkpoint=workdir, source=SCENES, **flags))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_accuracies_are_printed_and_are_those_of_the_json(straight):
    report = json.loads(probe(straight[0], "--json", k=3))
    assert {name: report[name] for name in ("source", "k", "metric")} == {
        "source": SCENES,
        "k": 3,
        "metric": "cosine",
    }
    text = probe(straight[0], k=3)
    assert f"3-NN accuracy on {SCENES}, 96 images to vote, 96 to classify" in text
    for name in ("features", "raw pixels"):
        accuracy = report["accuracy"][name]["accuracy"]
        assert 1 / 12 < accuracy <= 1  # better than a guess
        assert re.search(rf"{name} +{accuracy:.1%} \(mean of the classes", text)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"pool": "tokens"}, "--pool=tokens: cls or mean"),
        ({"source": "nothing"}, "unknown source 'nothing'"),
        ({"test_split": "somewhere"}, "unknown split 'somewhere'"),
    ],
    ids=str,
)
def test_wrong_input_is_one_line(straight, flags, message):
    assert message in error_of(run(command("probe", checkpoint=straight[0], **flags)), 2)


def test_the_checkpoint_must_be_given():
    assert error_of(run(command("probe")), 2) == "give --checkpoint=DIR, the --workdir of a training run"
