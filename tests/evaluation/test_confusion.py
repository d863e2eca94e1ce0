"""Confusion matrices against scikit-learn."""

import csv

import numpy as np
from sklearn import metrics

from scaling.evaluation.confusion import Confusion, label_table
from scaling.evaluation.scores import Predictions

NAMES = ("field", "forest", "river", "never there")
RNG = np.random.default_rng(0)


def test_the_matrix_its_table_and_its_file(tmp_path):
    truth, predicted = RNG.integers(0, 3, 200), RNG.integers(0, 4, 200)
    confusion = Confusion.of(Predictions(predicted, truth), NAMES)
    expected = metrics.confusion_matrix(truth, predicted, labels=range(4))
    np.testing.assert_array_equal(confusion.matrix, expected)
    recall = metrics.recall_score(truth, predicted, labels=range(3), average=None)
    np.testing.assert_allclose(confusion.accuracy()[:3], recall)
    assert np.isnan(confusion.accuracy()[3])
    confusion.write(tmp_path / "confusion.csv")
    header, *rows = csv.reader((tmp_path / "confusion.csv").open(newline=""))
    assert header == ["true class", *NAMES]
    assert [[int(x) for x in row[1:]] for row in rows] == expected.tolist()
    _, first, *_, last = confusion.table().splitlines()
    off = np.where(np.arange(4) == 0, 0, expected[0])
    told = [f"{expected[0].sum()}", f"{recall[0]:.1%}", *NAMES[off.argmax()].split(), f"({off.max()})"]
    assert first.split() == ["field", *told]
    assert last.split() == ["never", "there", "0", "-", "-"]
    confusion.draw(tmp_path / "figures" / "confusion.png")
    assert (tmp_path / "figures" / "confusion.png").stat().st_size > 1000


def test_of_several_labels_there_is_the_precision_of_each():
    truth, scores = RNG.integers(0, 2, (60, 3)), RNG.normal(size=(60, 3))
    truth[:, 2] = 0
    lines = label_table(Predictions(scores, truth), NAMES[:3]).splitlines()[1:]
    for k in range(2):
        expected = metrics.average_precision_score(truth[:, k], scores[:, k])
        assert lines[k].split() == [NAMES[k], str(truth[:, k].sum()), f"{expected:.1%}"]
    assert lines[2].split() == ["river", "0", "-"]
