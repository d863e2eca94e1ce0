"""Parses optimised HLO text into computations and instructions, and counts the runs of each computation in one step.

The text comes from `compiled.as_text()` for a TPU. A scan is a `while` loop there, whose body is counted once per
iteration; the compiler's own cost analysis counts it once.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

ITEMSIZE = {"pred": 1, "bf16": 2, "f16": 2, "s4": 0.5, "u4": 0.5}  # for types whose name does not end in their bits
_BUFFER = re.compile(r"([a-z][a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?")
_NAMES = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Buffer:
    """One array: its dtype and shape, and whether it is in HBM (a layout names any other memory, such as `S(1)` for
    VMEM).
    """

    dtype: str
    shape: tuple[int, ...]
    in_hbm: bool

    @property
    def size(self) -> int:
        """Bytes, without the padding of the layout; 0 for a token."""
        bits = re.match(r"[a-z]+(\d+)", self.dtype)
        item = ITEMSIZE.get(self.dtype) or (int(bits[1]) / 8 if bits else 0)
        return math.ceil(math.prod(self.shape) * item)


def buffers(shape: str) -> list[Buffer]:
    """The arrays of a (tuple) shape, nested tuples flattened."""
    return [
        Buffer(dtype, tuple(int(n) for n in sizes.split(",") if n), "S(" not in layout)
        for dtype, sizes, layout in _BUFFER.findall(shape)
    ]


@dataclasses.dataclass(frozen=True)
class Instruction:
    """`name = shape opcode(arguments), attributes`."""

    name: str
    shape: str
    opcode: str
    arguments: str
    attributes: str

    @functools.cached_property
    def operands(self) -> list[str]:
        return _NAMES.findall(self.arguments)

    @functools.cached_property
    def results(self) -> list[Buffer]:
        return buffers(self.shape)

    @property
    def size(self) -> int:
        return sum(buffer.size for buffer in self.results)

    @functools.cached_property
    def called(self) -> dict[str, str]:
        """Attribute -> computation it names."""
        return dict(_CALLED.findall(self.attributes))


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in order; the last one is the root unless another is marked."""

    name: str
    instructions: dict[str, Instruction]
    root: Instruction

    @functools.cached_property
    def parameters(self) -> list[Instruction]:
        found = [x for x in self.instructions.values() if x.opcode == "parameter"]
        return sorted(found, key=lambda x: int(x.arguments))

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Name of an instruction -> the instructions that take it as an operand."""
        result: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for operand in dict.fromkeys(instruction.operands):
                result[operand].append(instruction)
        return result


@dataclasses.dataclass(frozen=True)
class Module:
    computations: dict[str, Computation]
    entry: Computation

    def runs(self) -> Iterator[tuple[Computation, float]]:
        """Every computation of the control flow with its number of runs: the entry and the computations of loops,
        branches and calls, but not the insides of fusions. Each branch of a conditional counts with an equal share of
        one run: the mean over many steps if branches are chosen at random.
        """
        pending: list[tuple[Computation, float]] = [(self.entry, 1)]
        while pending:
            computation, times = pending.pop()
            yield computation, times
            for x in computation.instructions.values():
                turns, names = self.trip_count(x) if x.opcode == "while" else 1, _control(x)
                often = times / len(names) if x.opcode == "conditional" else times * turns
                pending += [(self.computations[name], often) for name in names]

    def trip_count(self, loop: Instruction) -> int:
        """Number of iterations of a while loop.

        Taken from the compiler's annotation, else from a condition of the form `counter < constant`, where the counter
        of a scan starts at 0 and increases by 1. 1 if unknown (a loop that depends on data).
        """
        known = re.search(r'known_trip_count\\?":\{\\?"n\\?":\\?"(\d+)', loop.attributes)
        if known:
            return int(known[1])
        condition = self.computations[loop.called["condition"]]
        root = condition.root
        limits = [condition.instructions[name] for name in root.operands]
        constants = [x for x in limits if x.opcode == "constant" and x.arguments.isdigit()]
        return int(constants[0].arguments) if "direction=LT" in root.attributes and constants else 1


def _control(x: Instruction) -> list[str]:
    """The computations that a control-flow instruction runs."""
    if x.opcode == "while":
        return [x.called["body"], x.called["condition"]]
    if x.opcode == "call":
        return [x.called["to_apply"]]
    if x.opcode == "conditional":
        branches = _BRANCHES.search(x.attributes)
        return _NAMES.findall(branches[1]) if branches else [x.called[f"{k}_computation"] for k in ("true", "false")]
    return []


def parse(text: str) -> Module:
    """Parses a module. Raises ValueError if the text has no entry computation."""
    computations: dict[str, Computation] = {}
    entry = name = None
    body: dict[str, Instruction] = {}
    root = ""
    for line in text.splitlines():
        if name is None:
            header = re.match(r"(ENTRY )?%?([\w.\-]+) \(?.*\{$", line)
            if header:
                name, body, root = header[2], {}, ""
                entry = name if header[1] else entry
        elif line.startswith("}"):
            computations[name] = Computation(name, body, body[root])
            name = None
        elif " = " in line:
            instruction = _instruction(line)
            body[instruction.name] = instruction
            if line.lstrip().startswith("ROOT ") or not root:
                root = instruction.name
    if entry is None:
        raise ValueError("HLO text without an ENTRY computation")
    return Module(computations, computations[entry])


def _instruction(line: str) -> Instruction:
    left, _, rest = line.partition(" = ")
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    end = _closing(rest[len(opcode) :]) + len(opcode)
    name = left.split()[-1].lstrip("%")
    return Instruction(name, shape, opcode, rest[len(opcode) + 1 : end - 1], rest[end:])


def _closing(text: str) -> int:
    """Index after the parenthesis that closes the one at the beginning of `text`."""
    depth = 0
    for match in re.finditer(r"[()]", text):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.end()
    raise ValueError(f"unbalanced parentheses in {text[:60]!r}")
