"""Bytes that a compiled step moves to and from HBM, from its HLO.

Read from the program rather than estimated from the model, because the compiler decides which arrays are in on-chip
memory: each layout in the text names its memory space, and only arrays in HBM are counted. The compiler's own figure
(`bytes accessed` of `cost_analysis`) is unsuitable: it counts a scanned layer once, and on-chip arrays as if in HBM.

Every instruction reads its operands and writes its results once per iteration of its loop; inside fusions, a slice
reads and an in-place update writes only the part it touches. Padding and repeated reads within a fusion are not
counted.
"""

from tpu.compiler.collectives import KINDS
from tpu.compiler.hlo import Buffer, Computation, Instruction, Module

FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional", "after-all"}
SLICES = {"dynamic-slice", "slice", "gather"}
VIEWS = {"bitcast", "reshape", "get-tuple-element"}


def hbm_bytes(module: Module) -> int:
    """Bytes read from and written to HBM by one device in one step."""
    return round(
        sum(
            times * moved(module, computation, x)
            for computation, times in module.runs()
            for x in computation.instructions.values()
        )
    )


def moved(module: Module, where: Computation, x: Instruction) -> int:
    """Bytes read from and written to HBM by one run of an instruction of the control flow, in its computation."""
    if x.opcode in FREE or x.opcode.endswith(("-done", "-update")) or x.name.startswith("async-collective-done"):
        return 0
    if x.opcode.endswith("-start") and not x.opcode.startswith("async"):
        return _started(x)
    operands = [where.instructions[name] for name in x.operands]
    if x.opcode == "fusion":
        inside = module.computations[x.called["calls"]]
        read = sum(
            min(_hbm(operand.results), _read(module, inside, parameter.name))
            for operand, parameter in zip(operands, inside.parameters, strict=True)
        )
        return read + sum(_written(inside, result, buffer) for result, buffer in _roots(inside, x.results))
    if x.opcode in SLICES:
        return (x.size if operands[0].results[0].in_hbm else 0) + _hbm(x.results)
    if x.opcode == "dynamic-update-slice":
        part = operands[1]
        return _hbm(part.results) + (part.size if x.results[0].in_hbm else 0)
    return sum(_hbm(operand.results) for operand in operands) + _hbm(x.results)


def _hbm(found: list[Buffer]) -> int:
    return sum(buffer.size for buffer in found if buffer.in_hbm)


def _started(x: Instruction) -> int:
    """Bytes of a copy, slice or collective that overlaps with other work: its smallest array moves between memories."""
    arrays = [buffer for buffer in x.results if buffer.dtype != "u32" and buffer.shape]
    moved = min((buffer.size for buffer in arrays), default=0)
    if x.opcode.removesuffix("-start") in KINDS:
        return _hbm(arrays)
    return moved * sum(buffer.in_hbm for buffer in arrays[:2])


def _read(module: Module, inside: Computation, name: str) -> int:
    """Bytes that a fusion reads from one of its parameters."""
    size = inside.instructions[name].size
    total = 0
    for user in inside.users[name]:
        first = user.operands[0] == name
        if user.opcode in SLICES and first:
            total += user.size
        elif user.opcode in VIEWS:
            total += _read(module, inside, user.name)
        elif user.opcode == "fusion":
            called = module.computations[user.called["calls"]]
            total += _read(module, called, called.parameters[user.operands.index(name)].name)
        elif user.opcode == "dynamic-update-slice" and first:
            continue  # updated in place
        elif user is inside.root and user.opcode == "tuple":
            continue  # handed through
        else:
            return size
    return min(total, size)


def _roots(inside: Computation, results: list[Buffer]) -> list[tuple[Instruction, Buffer]]:
    """The instruction that makes each result of a fusion."""
    root = inside.root
    made = [inside.instructions[name] for name in root.operands] if root.opcode == "tuple" else [root]
    if len(made) != len(results):  # one instruction with several results
        return [(root, buffer) for buffer in results]
    return list(zip(made, results, strict=True))


def _written(inside: Computation, made: Instruction, result: Buffer) -> int:
    while made.opcode in VIEWS and made.opcode != "get-tuple-element":
        made = inside.instructions[made.operands[0]]
    handed_through = made.opcode == "parameter" or (made.opcode in KINDS and "chain_id" in made.attributes)
    if not result.in_hbm or handed_through:
        return 0
    if made.opcode == "dynamic-update-slice":
        return inside.instructions[made.operands[1]].size
    return result.size
