"""One compiled config as one row, which `tpu.preflight` prints, writes as JSON and collects in its table."""

import importlib.metadata
import os
from typing import Any

from rich.table import Table

from scaling.core.console import console
from scaling.core.errors import UserError
from tpu.compiler import collectives, traffic
from tpu.compiler.roofline import roofline, step_flops
from tpu.compiler.step import Config, OutOfMemoryError, Program, compile_step, fsdp_bytes, train_step_for
from tpu.compiler.topology import Topology, parse

GIB = 2**30
_COMPILED = (
    "hbm_per_chip_bytes", "hbm_limit_bytes", "compile_seconds", "flops_per_step", "collective_bytes", "mfu_bound",
    "binding",
)  # fmt: skip
IMAGE_BYTES = 41e3  # a JPEG of 256 pixels of Million-AID, as stored by `scaling.prepare`
BUCKET_READS = 5000  # a second, all hosts together: "Request rate and access distribution guidelines" of Cloud Storage
TERMS = {"compute": "compute", "hbm": "HBM traffic", "ici": "interconnect"}
PreflightRow = dict[str, Any]


def preflight(name: str, c: Config, topology: Topology) -> PreflightRow:
    """Compiles the step of a config for a slice, and reports its memory, traffic and bounds.

    Returns:
      A JSON-serialisable dictionary. Memory and traffic are bytes per JAX device, which is a chip (half a chip for
      TPU7x). `hbm_per_chip_bytes` is the sum of the compiler's figures: it may exceed the limit in a step that fits,
      because parts can share memory. If the step does not fit, or cannot run on this slice at all, `why` is the reason,
      and values that need a compiled step are None.
    """
    row: PreflightRow = {
        "config": name,
        "topology": topology.name,
        "chips": topology.chips,
        "wrap": list(topology.wrap),
        "reading": collectives.READING,
        "batch_size": c.batch_size,
        "accumulate": c.accumulate,
        "remat": c.model.remat,
        "steps": c.steps,
        "versions": {package: importlib.metadata.version(package) for package in ("jax", "libtpu")},
        "cores": os.cpu_count(),
        "fits": False,
    } | dict.fromkeys(_COMPILED)
    try:
        train_step = train_step_for(c, topology)
    except UserError as e:
        return row | {"why": f"{name} on {topology.name}: {e}"}
    row |= {"mesh": dict(train_step.mesh.shape), "flops_per_step": step_flops(train_step)}
    try:
        return row | _fits(compile_step(train_step, topology), topology)
    except OutOfMemoryError as e:
        return row | {
            f"{e.space}_per_chip_bytes": e.needed,
            f"{e.space}_limit_bytes": e.limit,
            "compile_seconds": round(e.seconds, 1),
            "why": f"{name} does not fit on {topology.name}: {_shortage(e)}",
        }


def _shortage(e: OutOfMemoryError) -> str:
    if e.space == "hbm":
        return f"the compiler needs {e.needed / GIB:.2f} GiB of HBM per chip and has {e.limit / GIB:.2f} GiB"
    mib = 2**20
    return (
        f"an operation needs {e.needed / mib:.2f} MiB of {e.space.upper()}, the memory beside the cores, which has "
        f"{e.limit / mib:.2f} MiB; it is not the HBM"
    )


def _fits(program: Program, topology: Topology) -> PreflightRow:
    devices = topology.chips * topology.chip.per_chip
    found = collectives.collectives(program.module, devices)
    moved = traffic.hbm_bytes(program.module)
    bound = roofline(program.train_step, found, moved, topology)
    sent = round(sum(x.times * x.bytes for x in found))
    return {
        "fits": True,
        "hbm_per_chip_bytes": program.arguments + program.temporaries,
        "hbm_arguments_bytes": program.arguments,
        "hbm_temporaries_bytes": program.temporaries,
        "hbm_limit_bytes": topology.hbm_limit,
        "compile_seconds": round(program.seconds, 1),
        "flops_per_step": bound.flops,
        "executed_flops_per_step": bound.executed,
        "collectives": collectives.totals(found),
        "collective_bytes": sent,
        "fsdp_bytes": fsdp_bytes(program.train_step),
        "overlapped_share": sum(x.times * x.bytes for x in found if x.overlaps) / sent if sent else 1.0,
        "hbm_traffic_bytes": moved,
        "seconds": {term: getattr(bound, term) for term in TERMS},
        "mfu_bound": bound.mfu_bound,
        "binding": bound.binding,
    }


def misread(row: PreflightRow) -> bool:
    """Whether an earlier version took gathers over a part of the devices for ones over all, and so the interconnect for
    faster than it is. Without replicas they are over all.
    """
    return row.get("fits", False) and row.get("reading", 1) < collectives.READING and row["mesh"]["replica"] > 1


def scheduled(row: PreflightRow, mfu: float, price: float | None) -> PreflightRow:
    """The row with `schedule` if it fits: hours of all steps at a stated MFU, or at its bound if that is lower,
    chip-hours and, at a price per chip-hour, US dollars.
    """
    if not row["fits"]:
        return row
    mfu = min(mfu, row["mfu_bound"])
    hours = row["steps"] * row["flops_per_step"] / (mfu * parse(row["topology"]).peak) / 3600
    images = row["steps"] * row["batch_size"] / (3600 * hours)
    result: PreflightRow = {"mfu": mfu, "hours": hours, "chip_hours": hours * row["chips"], "images_per_second": images}
    return row | {
        "schedule": result if price is None else result | {"price": price, "cost": result["chip_hours"] * price}
    }


def _input(row: PreflightRow) -> str:
    """The input that each host must read, and whether a bucket can supply it."""
    hosts, images = max(1, row["chips"] // 4), row["schedule"]["images_per_second"]
    said = (
        f"{images / hosts:,.0f} images/s and {images / hosts * IMAGE_BYTES / 1e6:,.0f} MB/s for each of {hosts} hosts, "
        f"at {IMAGE_BYTES / 1e3:.0f} KB an image"
    )
    if images > BUCKET_READS:
        return (
            f"{said}: more than a bucket gives at once ({BUCKET_READS:,} reads a second), set data.stage=/dev/shm/data"
        )
    return said


def show(row: PreflightRow) -> None:
    """Prints a row that fits, with its schedule."""
    lines = {
        "verdict": f"{row['config']} fits on {row['topology']}: {chips_of(row)}, "
        + ", ".join(f"{axis} {size}" for axis, size in row["mesh"].items())
        + f", {row['batch_size']} images a step, remat {row['remat']}",
        "memory": _memory(row),
        "compute": f"{row['flops_per_step'] / 1e12:,.1f} TFLOP a step (full convention), "
        f"{row['executed_flops_per_step'] / 1e12:,.1f} with what remat repeats",
        "sent": _sent(row),
        "roofline": ", ".join(f"{TERMS[term]} {seconds * 1e3:.1f} ms" for term, seconds in row["seconds"].items())
        + f" ({row['hbm_traffic_bytes'] / 1e9:.1f} GB to and from HBM)",
        "bound": f"MFU at most {row['mfu_bound']:.1%}; bottleneck: {TERMS[row['binding']]}",
        "schedule": "{:,} steps: {:,.1f} hours at {:.0%} MFU, {:,.0f} chip-hours".format(
            row["steps"], *(row["schedule"][x] for x in ("hours", "mfu", "chip_hours"))
        )
        + (", {cost:,.0f} USD at {price} an hour".format(**row["schedule"]) if "cost" in row["schedule"] else ""),
        "input": _input(row),
        "compiled": f"in {row['compile_seconds']:.0f} s",
    }
    out = console(soft_wrap=True)
    for what, line in lines.items():
        out.print(f"{what:<9}{line}", markup=False)


def _sent(row: PreflightRow) -> str:
    if not row["collectives"]:
        return "nothing"
    kinds = (f"{x['count']:,} {kind}, {x['bytes'] / 1e9:.2f} GB" for kind, x in row["collectives"].items())
    return (
        f"{'; '.join(kinds)} per chip and step ({row['fsdp_bytes'] / 1e9:.2f} GB is what FSDP needs), "
        f"{row['overlapped_share']:.0%} of it beside other work"
    )


def _memory(row: PreflightRow) -> str:
    total, limit = row["hbm_per_chip_bytes"], row["hbm_limit_bytes"]
    parts = (
        f"{row['hbm_arguments_bytes'] / GIB:.2f} parameters and optimizer, {row['hbm_temporaries_bytes'] / GIB:.2f} "
        "temporaries"
    )
    if total > limit:
        return f"{memory_of(row)} of HBM per chip: {parts}, some of which share it"
    free = f"{(limit - total) / GIB:.2f} of {limit / GIB:.2f} stay free"
    return f"{total / GIB:.2f} GiB of HBM per chip: {parts}; {free}"


COLUMNS = (
    "config", "topology", "mesh", "remat", "fits", "HBM per chip", "MFU bound", "bottleneck", "chip-hours", "compiled",
)  # fmt: skip


def cells(row: PreflightRow) -> list[str]:
    """A row in the columns of COLUMNS."""
    memory = memory_of(row) if row.get("hbm_limit_bytes") else ""
    parts = row.get("accumulate", 1)
    how = f"{row['remat']}, {parts} microbatches" if parts > 1 else row.get("remat", "")
    what = [row["config"], row["topology"], " x ".join(map(str, row.get("mesh", {}).values())), how]
    if not row["fits"]:
        return [*what, "no", memory, "", "", "", ""]
    return [
        *what,
        "yes",
        memory,
        f"{row['mfu_bound']:.0%}",
        TERMS[row["binding"]],
        f"{row['schedule']['chip_hours']:,.0f} at {row['schedule']['mfu']:.0%} MFU",
        f"{row['compile_seconds']:.0f} s",
    ]


def chips_of(row: PreflightRow) -> str:
    return "1 chip" if row["chips"] == 1 else f"{row['chips']} chips"


def memory_of(row: PreflightRow) -> str:
    """HBM used and available. The compiler reports sizes that add up to an upper limit of the use: close to the
    limit it packs them more tightly.
    """
    total, limit = row["hbm_per_chip_bytes"], row["hbm_limit_bytes"]
    if row["fits"] and total > limit:
        return f"nearly all of {limit / GIB:.1f} GiB"
    return f"{total / GIB:.1f} of {limit / GIB:.1f} GiB"


def show_table(rows: list[PreflightRow]) -> None:
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*cells(row))
    console().print(table)
