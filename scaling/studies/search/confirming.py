"""Confirms the winner of a search with labels: a probe of its features beside those of the whole encoder."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from scaling.core.errors import UserError
from scaling.core.rows import LABELS, Row
from scaling.data.labels import check_labels
from scaling.data.sources.default_splits import default_splits
from scaling.data.sources.registry import store_specs
from scaling.encoders.encoder import Encoder
from scaling.encoders.splits import Split, labelled_features
from scaling.evaluation.probes import PROBES
from scaling.studies.rows import score_rows


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Labelled images, and the probe of their features.

    Attributes:
      source: spec of the images; empty for no confirmation.
      train_split, test_split: splits to train the probe on, and to score it on.
      limit: largest number of images from each, 0 for all.
      probe: see `scaling.evaluation.probes`.
    """

    source: str = ""
    train_split: str = "train"
    test_split: str = "test"
    limit: int = 4000
    probe: str = "knn"

    def __post_init__(self) -> None:
        store_specs(self, "source")

    def checked(self, encoder: Encoder) -> "Labelled":
        """The same with existing splits, see `scaling.data.sources.default_splits`.

        Raises:
          UserError: images that do not exist, have no labels, or lack the bands of the encoder.
        """
        try:
            train, test = default_splits(self.source, self.train_split, self.test_split)
            for split in (train, test):
                check_labels(Split(encoder, self.source, split).opened, self.source, split)
        except UserError as e:
            raise UserError(f"--confirm={self.source}: {e}") from e
        return dataclasses.replace(self, train_split=train, test_split=test)


@dataclasses.dataclass(frozen=True)
class ConfirmJob:
    """A job of `scaling.studies.grid`.

    Attributes:
      labelled: the images.
      pool: pool of the features.
      whole: the encoder that was searched.
      winner: returns the encoder that was written.
      rows: row of each before it is probed, by `whole` and `winner`.
    """

    name: str
    labelled: Labelled
    pool: str
    whole: Encoder
    winner: Callable[[], Encoder]
    rows: dict[str, Row]

    @property
    def cost(self) -> float:
        return 2.0

    def run(self) -> list[Row]:
        images, encoders = self.labelled, {"whole": self.whole, "winner": self.winner()}
        functions = {name: functools.partial(e.encode, pool=self.pool) for name, e in encoders.items()}
        read = functools.partial(labelled_features, self.whole, images.source, functions=functions, limit=images.limit)
        (train, train_labels), (test, labels) = (read(split=s) for s in (images.train_split, images.test_split))
        found = []
        for name, row in self.rows.items():
            predictions = PROBES[images.probe]((train[name], train_labels), (test[name], labels))
            where: dict[str, Any] = {"dataset": images.source, "split": images.test_split, "probe": images.probe}
            found += score_rows(row, predictions, **where)
        return found


def confirmed(rows: list[Row], whole: str) -> list[str]:
    """The results of the probe, in lines; `whole` is the `mode` of the whole encoder's rows."""
    said = []
    for row in rows:
        if row.probe in PROBES and row.probe != LABELS and row.metric.startswith("macro_"):
            name, value = "whole" if row.mode == whole else "winner", row.value or 0
            interval = "" if row.low is None or row.high is None else f" (95 % {row.low:.1%} to {row.high:.1%})"
            said.append(f"{row.probe} on {row.dataset}, {name}: {row.metric.replace('_', ' ')} {value:.1%}{interval}")
    return said
