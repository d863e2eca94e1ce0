"""Budgets of a search: a latency on this device, a share of the operations, or a number of parameters."""

import dataclasses
import re

from scaling.core.errors import UserError

LATENCY, FLOPS, PARAMS = "latency", "flops", "params"
_UNITS = {
    LATENCY: {"us": 1e-6, "ms": 1e-3, "s": 1.0},
    FLOPS: {"": 1.0},
    PARAMS: {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9},
}
_EXAMPLES = {LATENCY: "latency:20ms", FLOPS: "flops:0.2", PARAMS: "params:20M"}


@dataclasses.dataclass(frozen=True)
class Budget:
    """An upper limit of one kind of cost.

    Attributes:
      kind: `latency` in seconds, `flops` relative to the whole encoder (`full` convention), `params` of the encoder.
      limit: limit in these units.
      text: the budget as written.
    """

    kind: str
    limit: float
    text: str

    def __str__(self) -> str:
        return self.text

    def said(self, cost: float) -> str:
        """A cost of this kind, in the notation of the flag."""
        if self.kind == LATENCY:
            return f"{cost * 1e3:.4g}ms"
        if self.kind == PARAMS:
            return f"{cost / 1e6:.4g}M"
        return f"{cost:.4g}"


def parse_budget(text: str) -> Budget:
    """The budget in the notation of the flag.

    Raises:
      UserError: an unknown kind or unit, or a number that is not positive.
    """
    kind, _, amount = text.partition(":")
    if kind not in _UNITS:
        raise UserError(f"--budget={text}: must be KIND:AMOUNT; give one such as {', '.join(_EXAMPLES.values())}")
    found = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-zA-Z%]*)", amount)
    units = _UNITS[kind]
    if not found or found[2] not in units or not _number(found[1]):
        named = ", ".join(unit for unit in units if unit)
        must = f"a positive number of {named}" if kind == LATENCY else "a positive number"
        more = f", with {named} behind it or nothing" if kind == PARAMS else ""
        raise UserError(f"--budget={text}: must be {must}{more}; give one such as {_EXAMPLES[kind]}")
    return Budget(kind, _number(found[1]) * units[found[2]], text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
