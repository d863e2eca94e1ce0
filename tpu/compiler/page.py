"""The page of a table of configs on slices."""

from collections.abc import Iterable, Sequence

from tpu.compiler.preflight_rows import COLUMNS, TERMS, PreflightRow, cells, chips_of, memory_of, misread
from tpu.compiler.topology import parse

WHICH = ("own mesh", "any mesh")  # what a search for the fastest variant ranges over
SMALLEST = """
## The smallest slice

The smallest slice of each TPU generation on which the config fits at the same global batch size, using as many
microbatches as necessary:

    python -m tpu.preflight --table=results/preflight --configs=vit_6b,vit_22b \\
        --smallest=v5e,v5p,v6e,v4

Slices on which parameters and optimizer alone do not fit are left out without being compiled. "Nearly all" of HBM means
that the buffer sizes that the compiler reports add up to more than the chip has (`hbm_per_chip_bytes` above
`hbm_limit_bytes`), yet it accepted the program (`fits`) by packing the buffers more tightly. Treat such a chip as full:
its exact use is not known.

"""
EARLIER = """
\\* Compiled from an earlier version of the training step, which folded tokens into the batch dimension or computed the
softmax sums twice; its HBM traffic is higher and its peak HBM different. The oldest version saved no matrix products
under remat `dots` and recomputed as much as `full` does. Other marked rows are of slices that have wrap-around links
(v4, v5p, and sides of 16), but were compiled as if these had none. `make preflight` recompiles all marked rows; for the
smallest slices, the command above does.
"""
MISREAD = """
† Read from the compiled program by an earlier version, which took most all-gathers for ones over all chips, though with
replicas they are over those of a replica: the time of the interconnect is too short, and the MFU bound too high where
the interconnect is the bottleneck, or where it would be. Memory and HBM traffic are right. `make preflight` recompiles
these rows, too.
"""
HEADER = """# Does it fit?

Each config with its default settings, compiled with the TPU compiler, without access to a TPU:

    make preflight

`rows.jsonl` has one row per line of the table (a config on a slice), with collectives, traffic and times. Running the
command again resumes an interrupted table. HBM per chip is shown as "used of available", where available is the part
that the compiler leaves to a program. The used figure is an upper bound, because near the limit the compiler packs
buffers more tightly. The mesh is replicas x parts of the parameters (FSDP) x parts of a layer's width (tensor). The MFU
bound is the roofline bound (`tpu/compiler/roofline.py`), neither a measurement nor a prediction. Compile times are
wall-clock times on {cores} cores shared with other work; those above ten minutes include time during which the process
was suspended.

"""

FASTEST = """
## The fastest variant

`--fit` searches for the variant with the shortest step by its roofline, over remat policies and microbatches on the
config's own mesh, and then over all meshes:

    python -m tpu.preflight --table=results/preflight --fit --configs={configs} \\
        --topologies={topologies}

Variants that could not be 5 % faster, by an optimistic estimate (`tpu/compiler/floor.py`), are not compiled.
`variants.jsonl` has every compiled variant that is not in `rows.jsonl`, and `fastest.jsonl` those of the table.

"""


def page(
    rows: Sequence[PreflightRow], least: Sequence[PreflightRow], fastest: Sequence[PreflightRow], program: int
) -> str:
    """The page of a table.

    Args:
      rows: configs on slices, with their schedules.
      least: the smallest slices, with their schedules.
      fastest: the fastest variants; see `tpu.compiler.table.fill_fastest`.
      program: the version of the program; rows of an earlier one are marked.
    """
    text = HEADER.format(cores=max((row.get("cores", 0) for row in rows), default=0))
    text += _table(COLUMNS, [_marked(row, program) for row in rows])
    if refused := [f"- {row['why']}" for row in rows if not row["fits"]]:
        text += "\n## What does not fit, and why\n\n" + "\n".join(refused) + "\n"
    if least:
        lines = (f"- {sentence(row)}{_mark(row, program)}" for row in least)
        text += SMALLEST + "\n".join(lines) + "\n"
    if fastest:
        text += _of_searches(fastest, program)
    variants = [variant for row in fastest for variant in found_in(row)]
    marks = "".join(_mark(row, program) for row in (*rows, *least, *variants))
    return text + (EARLIER if "*" in marks else "") + (MISREAD if "†" in marks else "")


def _table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    written = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *(f"| {' | '.join(x)} |" for x in lines)]
    return "\n".join(written) + "\n"


def found_in(row: PreflightRow) -> list[PreflightRow]:
    """The fastest variants in a row of a search, none where nothing fits."""
    return [row[which] for which in WHICH if which in row]


def _of_searches(found: Sequence[PreflightRow], program: int) -> str:
    names, places = (",".join(dict.fromkeys(row[field] for row in found)) for field in ("config", "topology"))
    columns = (*COLUMNS[:2], "searched", *COLUMNS[2:4], *COLUMNS[5:8], COLUMNS[9])
    lines = []
    for row in found:
        for which in WHICH if "why" not in row else ():
            name, where, mesh, how, _, memory, bound, term, _, seconds = _marked(row[which], program)
            lines.append([name, where, which, mesh, how, memory, bound, term, seconds])
    refused = "".join(f"\n- {row['why']}" for row in found if "why" in row)
    return (
        FASTEST.format(configs=names, topologies=places) + _table(columns, lines) + (f"{refused}\n" if refused else "")
    )


def _mark(row: PreflightRow, program: int) -> str:
    rings = any(parse(row["topology"]).wrap) if ":" in row["topology"] else False
    earlier = row.get("program", 1) < program or (rings and not row.get("wrap"))
    return "*" * earlier + "†" * misread(row)


def _marked(row: PreflightRow, program: int) -> list[str]:
    first, *others = cells(row)
    return [f"{first}{_mark(row, program)}", *others]


def sentence(row: PreflightRow) -> str:
    """The last row of `fit.smallest` as a sentence, with its schedule: the smallest slice may be the most expensive."""
    if not row["fits"]:
        return row["why"]
    flag = "" if row["accumulate"] == 1 else f" with --config.accumulate={row['accumulate']}"
    return (
        f"{row['config']}: {row['topology']}, {chips_of(row)}{flag}, {memory_of(row)} of HBM, MFU at most "
        f"{row['mfu_bound']:.0%} (bottleneck: {TERMS[row['binding']]}), "
        f"{row['schedule']['chip_hours']:,.0f} chip-hours at {row['schedule']['mfu']:.0%}"
    )
