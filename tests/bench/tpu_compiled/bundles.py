"""Instruction words that a TPU program issues, from the final schedules that its compiler writes out.

libtpu writes one text for every instruction of the program that it makes code for. A line of it is one very long
instruction word, a bundle, which takes a cycle unless it waits. A line begins with its address and a `>` for every loop
around it; the first line of a loop is marked `LB:`, its test names the number of turns, and it ends with the branch on
that test and the bundles that are issued before the branch is taken:

    0x2 LB: > { %s8 = sphi ... }
    0x3   : > { %p5 = scmp.ge.s32.totalorder %s8, 7 /* loop exit test */ }
    0x4   :  { %9 = sbr.rel (!%p5) target = $region11 }

The count is iterations x bundles. If the number of iterations is not a constant in the text, the loop counts once; code
that an iteration may skip counts as executed. The flags are undocumented: another libtpu may refuse them, which ends
the process, or write something else. Its flag for a profile per instruction is unusable here: on a whole step it
exceeded 14 GB of memory.
"""

import dataclasses
import re
from pathlib import Path

FLAGS = "--xla_jf_dump_to={} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=^final_bundles"
_BUNDLE = re.compile(r"\s*(?:0x[0-9a-f]+|0)\s+([A-Z ]{2})?\s*:\s*((?:>\s*)*)\{")
_TEST = re.compile(r"%(\w+) = scmp\.ge\.s32\.totalorder %\w+, (\d+) /\* loop exit test")
_FILE = re.compile(r"\d+-(.+)-\d+-final_bundles\.txt")
DELAY = 4  # bundles behind a branch that are issued before it is taken


@dataclasses.dataclass
class _Loop:
    depth: int
    turns: int = 1
    test: str = ""
    bundles: int = 0
    left: int = 0  # bundles until its end, once the branch back has been issued


def count(text: str) -> int:
    """Bundles issued by one schedule."""
    around = [_Loop(0)]
    for line in text.splitlines():
        bundle = _BUNDLE.match(line)
        if not bundle:
            continue  # the rest of a long one
        depth, test = bundle[2].count(">"), _TEST.search(line)
        if bundle[1] == "LB":
            _leave(around, depth - 1)
            around.append(_Loop(depth))
        if test:
            _leave(around, depth)
            around[-1].test, around[-1].turns = test[1], int(test[2])
        loop = around[-1]
        loop.bundles += 1
        if loop.left:
            loop.left -= 1
            if not loop.left:
                _leave(around, loop.depth - 1)
        elif loop.test and f"sbr.rel (!%{loop.test})" in line:
            loop.left = DELAY
    _leave(around, 0)
    return around[0].bundles


def _leave(around: list[_Loop], depth: int) -> None:
    """Closes the loops that are deeper."""
    while around[-1].depth > depth:
        loop = around.pop()
        around[-1].bundles += loop.turns * loop.bundles


def read(folder: Path) -> dict[str, int]:
    """Name of an instruction -> its bundles; empty if the compiler wrote no schedules."""
    files = ((_FILE.fullmatch(file.name), file) for file in folder.iterdir()) if folder.is_dir() else ()
    return {name[1]: count(file.read_text()) for name, file in files if name and "schedule-analysis" not in file.name}
