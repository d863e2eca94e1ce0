"""The provenance of the parts of a reproduction, kept beside its rows over all calls in the folder."""

import json
from collections.abc import Iterable

from etils import epath

from scaling.core.files import write_whole
from scaling.studies.reproduction.parts import said_of

_KINDS = ("models", "normalised", "left_out")


class Record:
    """Lines on the models and their data sets, in OUTPUT/provenance.json; written with each change.

    Args:
      output: folder of the reproduction.
    """

    def __init__(self, output: epath.Path):
        self._output, self._file = output, output / "provenance.json"

    def _said(self) -> dict[str, dict[str, str]]:
        there = json.loads(self._file.read_text()) if self._file.exists() else {}
        return {kind: there.get(kind, {}) for kind in _KINDS}

    def add(self, kind: str, part: str, line: str) -> None:
        """Adds a line.

        Args:
          kind: `models`, `normalised` or `left_out`.
          part: name of a model, or MODEL on DATASET; its earlier line is replaced, and of a part that is measured now,
            the line on why it was left out.
          line: the line.
        """
        said = self._said()
        said[kind][part] = line
        if kind == "normalised":
            said["left_out"].pop(part, None)
        write_whole(self._file, json.dumps(said, indent=2) + "\n")

    def lines(self, models: Iterable[str]) -> list[str]:
        """All lines, those of earlier calls too. `models`: models with rows; of folders begun before there was a
        record, their lines come from their encoders.
        """
        said = self._said()
        for name in models:
            if name not in said["models"] and (folder := self._output / "models" / name).is_dir():
                said["models"][name] = said_of(name, folder)
        return [
            *said["models"].values(),
            *(f"{part}: {line}" for part, line in said["normalised"].items()),
            *(f"Left out: {part}: {line}" for part, line in said["left_out"].items()),
        ]
