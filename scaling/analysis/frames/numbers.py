"""Numbers as people write them: 1e9, 1B, 1.5T."""

import re

SUFFIXES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_QUOTED = r"'[^']*'|\"[^\"]*\"|`[^`]*`"
_SUFFIXED = re.compile(rf"{_QUOTED}|(?<![\w.])(?P<number>(?:\d+\.?\d*|\.\d+)[KMBT])(?!\w)")


def number(written: str) -> float:
    """A number, which may end in K, M, B or T; raises ValueError for anything else."""
    written = written.strip()
    return float(written[:-1]) * SUFFIXES[written[-1]] if written[-1:] in SUFFIXES else float(written)


def without_suffixes(expression: str) -> str:
    """An expression with its numbers written out; quoted words and names in backticks are unchanged."""

    def in_full(found: re.Match[str]) -> str:
        return repr(number(found["number"])) if found["number"] else found[0]

    return _SUFFIXED.sub(in_full, expression)
