"""Questions to a law beyond its constants, and refusal of answers that extrapolate too far."""

import dataclasses
from typing import Any

import numpy as np

from scaling.analysis.frames.numbers import number
from scaling.analysis.laws.allocation import allocate
from scaling.analysis.laws.diagnostics import DECADE
from scaling.analysis.laws.forms import FORMS
from scaling.analysis.laws.report import Law
from scaling.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Questions:
    """Read from a command line.

    Attributes:
      points: text -> inputs at which to predict.
      budgets: text -> compute to divide.
    """

    points: dict[str, list[float]]
    budgets: dict[str, float]

    def answers(self, law: Law, extrapolate: bool) -> tuple[dict[str, Any], list[str]]:
        """The answers as JSON, and the reasons for refused ones, one per line."""
        answers: dict[str, Any] = {}
        refused = []
        for name, flag, verb, asked, answered in (
            ("predictions", "at", "predicted", self.points, lambda x: law.at([x])[0]),
            ("allocations", "allocate", "divided", self.budgets, lambda c: allocate(law, c)),
        ):
            kept = []
            for written, question in asked.items():
                try:
                    answer = answered(question)
                    why = "" if extrapolate else _too_far(law, answer.beyond)
                except UserError as e:
                    why = str(e)
                if why:
                    refused.append(f"--{flag}={written} is not {verb}: {why}")
                else:
                    kept.append(dataclasses.asdict(answer))
            if kept:
                answers[name] = kept
        return answers, refused


def questions(form: str, at: list[str], allocations: list[str]) -> Questions:
    """Parses questions.

    Args:
      form: form of the law.
      at: inputs like 1e9 or 1B (K, M, B, T), or 1e9:2e6 for two.
      allocations: budgets like 1e18.

    Raises:
      UserError: no positive numbers, not as many as the form has inputs, or budgets for a form that divides none.
    """
    if allocations and form != "chinchilla":
        raise UserError(f"--allocate needs --form=chinchilla, not {form}")
    budgets = {c: _numbers("allocate", c, 1)[0] for c in allocations}
    return Questions({x: _numbers("at", x, len(FORMS[form].inputs)) for x in at}, budgets)


def _numbers(flag: str, written: str, count: int) -> list[float]:
    try:
        found = [number(x) for x in written.split(":")]
    except ValueError:
        found = []
    if len(found) != count or not all(0 < x < np.inf for x in found):
        like = ":".join(["1e9", "2e6"][:count])
        raise UserError(f"--{flag}={written}: {'positive numbers' if count > 1 else 'a positive number'} like {like}")
    return found


def _too_far(law: Law, beyond: float) -> str:
    """The reason for refusing an answer; empty if it is given."""
    if beyond <= 1 or (beyond <= DECADE and not law.warnings):
        return ""
    return "; ".join([f"that is {beyond:.3g} times beyond what was measured", *law.warnings])
