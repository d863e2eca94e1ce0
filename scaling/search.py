"""Which depth and widths are best under one budget? Searches depth, widths and branches without labels or training.

    python -m scaling.search --checkpoint=DIR --budget=latency:20ms --output=DIR2 [--batch=1 --source=SPEC]
    python -m scaling.search --checkpoint=DIR --budget=flops:0.2 --output=DIR2 [--axes=layers,head_dim,mlp --blocks=all]
    python -m scaling.search --checkpoint=DIR --budget=params:20M --output=DIR2 [--confirm=SPEC --probe=knn|linear]

A candidate is a choice of blocks and a fraction of every other axis. Its units are ordered and its output projections
are refitted in closed form; the last projection before a gap is also fitted to replace the removed blocks. Its score is
the distance of its features from those of the whole encoder. The images are divided in three: half for the repairs, a
quarter to select among candidates, and the last quarter to compute every reported error, so that these errors are not
biased by selecting the best of hundreds. One pass over the images measures all depths of one width. Latencies are those
of this device: blocks of some sizes are timed, others are interpolated, and the winner is timed as a whole. DIR2 is a
checkpoint of the winner that every command reads, with `rows.jsonl` and `figures/front`, the front of error against
cost, which is drawn with the fronts of uniform widths and of depth alone. The same command resumes. Latency on a TPU is
not predicted: `tpu.preflight` compiles for a TPU, but only training steps.
"""

import json
import time
from typing import Any

from etils import epath

from scaling import cli
from scaling.analysis.fronts import draw_fronts
from scaling.core.console import console
from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.core.paths import check_file, check_folder
from scaling.core.rows import Row
from scaling.encoders.loading import describe_encoder, load_encoder
from scaling.encoders.unlabelled import define_image_flags, unlabelled
from scaling.evaluation.probes import PROBES
from scaling.models.vit import POOLS
from scaling.slimming.orderings import ORDERINGS
from scaling.studies.grid import Grid
from scaling.studies.journal import Journal
from scaling.studies.search.budgets import LATENCY, Budget, parse_budget
from scaling.studies.search.confirming import Labelled, confirmed
from scaling.studies.search.run import Measured, at_cost, gains_beside
from scaling.studies.search.space import BLOCKS
from scaling.studies.search.study import DEPTH, UNIFORM, Search, SearchConfig, check_budget, counted
from scaling.studies.search.winner import GAIN, LATENCY_SECONDS, WINNER


def define_flags(define: cli.Define) -> None:
    define.path("checkpoint", None, "The --workdir of a run, or a checkpoint of scaling.convert or scaling.prune.")
    define.integer("step", None, "Step of the checkpoint; the newest by default.")
    define.string("budget", None, "latency:20ms (us, ms, s), flops:0.2 of the whole encoder, or params:20M (K, M, B).")
    define.integer("batch", 1, "Batch size of --budget=latency.", lower_bound=1)
    define.list(
        "axes", [], "Axes to cut: layers, branch, heads, head_dim, mlp, embed, or a mode; by default all but embed."
    )
    define.list("widths", ["0.25", "0.5", "0.75", "1"], "Shares to which every axis but layers may be cut.")
    define.enum(
        "blocks",
        "prefix",
        BLOCKS,
        "Blocks that a candidate may keep: the first ones (prefix), those with the largest influence (shortgpt), every "
        "subset, for up to 8 blocks (any), or prefix and shortgpt together (all).",
    )
    define.integer(
        "candidates", 300, "Approximate number of candidates to measure; all, if there are fewer.", lower_bound=1
    )
    define.enum("ordering", "svd", ORDERINGS, "Order in which units are kept; see scaling.features.")
    define.enum(
        "pool", "mean", [pool for pool in POOLS if pool != "tokens"], "Pooling of the features that are compared."
    )
    define_image_flags(define, images=1000)
    define.integer("seed", 0, "Seed of the split of the images into parts for repair, choice and measurement.")
    define.string("confirm", "", "Labelled source on which winner and whole encoder are probed.")
    define.enum("probe", "knn", list(PROBES), "Probe of --confirm; see scaling.probe.")
    define.string("train_split", "train", "Split of --confirm that the probe learns from.")
    define.string("test_split", "test", "Split of --confirm that it is scored on.")
    define.integer("limit", 4000, "Maximum number of images of each split of --confirm, 0 for all.", lower_bound=0)
    define.path("output", None, "Folder for checkpoint, rows and figures; an unfinished search in it is resumed.")
    define.path("json", None, "File for budget, winner and front.")
    define.string("name", "", "Name of the model in the rows; by default that of its directory.")


@cli.command(define_flags)
def main(argv: list[str], flags: cli.Flags) -> None:
    cli.require(flags, "checkpoint=DIR", "budget=KIND:AMOUNT", "output=DIR")
    budget, c = parse_budget(flags.budget), _config(flags)
    described = describe_encoder(flags.checkpoint, flags.step)
    c.check(described)
    space = c.space(described)
    if budget.kind != LATENCY:
        check_budget(space, budget, counted(space, budget.kind))
    labelled = Labelled(flags.confirm, flags.train_split, flags.test_split, flags.limit, flags.probe)
    if flags.confirm:
        labelled = labelled.checked(described)
    if flags.json:
        check_file("json", flags.json, {"the --checkpoint": [flags.checkpoint]})
    output = check_folder("output", flags.output, checkpoints=True)
    encoder = load_encoder(flags.checkpoint, flags.step)
    (opened,) = unlabelled([encoder], flags)
    name = flags.name or epath.Path(flags.checkpoint).name
    where = str(epath.Path(flags.checkpoint).resolve())
    search = Search(encoder, name, opened, c, budget, output, labelled if flags.confirm else None, where)
    console().print(
        f"{len(search.space):,} candidates: {len(search.space.sets)} sets of blocks, "
        + ", ".join(f"{axis} {'/'.join(f'{s:g}' for s in shares)}" for axis, shares in search.space.shares.items())
    )
    with search.journal.open():
        began, before = time.perf_counter(), search.count
        found = search.run(_run)
        minutes = (time.perf_counter() - began) / 60
        _report(search, found, search.count - before, minutes, flags)


def _config(flags: cli.Flags) -> SearchConfig:
    try:
        widths = tuple(float(s) for s in flags.widths)
    except ValueError:
        raise UserError(
            f"--widths={','.join(flags.widths)}: must be fractions of an axis, such as 0.25,0.5,1"
        ) from None
    fields: dict[str, Any] = {name: getattr(flags, name) for name in ("blocks", "candidates", "ordering", "pool")}
    return SearchConfig(axes=tuple(flags.axes), widths=widths, batch=flags.batch, seed=flags.seed, **fields)


def _run(jobs: list[Any], journal: Journal) -> None:
    """Runs the jobs, printing progress."""

    def begins(job: Any, number: int, of: int) -> None:
        console(stderr=True).print(f"{number + 1} of {of}: {job.name.rpartition(',')[0]}")

    Grid(jobs, journal).run(begins=begins).check("candidates", "measured")


def _report(search: Search, found: list[Measured], new: int, minutes: float, flags: cli.Flags) -> None:
    out, budget, fronts = console(), search.budget, search.fronts(found)
    if new:
        out.print(f"measured {new:,} candidates, {new / minutes:.1f} a minute; {len(found):,} in all")
    best = next(iter(fronts.values()))
    for one in best:
        out.print(f"  {budget.said(one.cost):>10}  {one.held_out:.4f}  {one.candidate}")
    for name in (UNIFORM, DEPTH):
        out.print(_beside(budget, best, name, fronts[name]))
    rows = {row.metric: row for row in search.decided}
    for line in [*sentences(budget, rows), *confirmed(search.confirmation, str(search.space.uncut))]:
        out.print(line)
    points = {name: [(one.cost, one.held_out) for one in line] for name, line in fronts.items() if line}
    kind = {"latency": "seconds", "flops": "operations, relative", "params": "parameters"}[budget.kind]
    limit = budget.limit, f"budget {budget}"
    output = epath.Path(flags.output)
    draw_fronts([(one.cost, one.held_out) for one in found], points, limit, kind, output / "figures" / "front")
    if flags.json:
        write_whole(flags.json, json.dumps(_content(search, best, rows), indent=2) + "\n")
    out.print(f"written  {output}\nfigure   {output / 'figures' / 'front'}.png")


def _beside(budget: Budget, best: list[Measured], name: str, other: list[Measured]) -> str:
    gains = gains_beside(best, other)
    nearer, further = (sum(sign * gain > 0 for _, gain in gains) for sign in (1, -1))
    if not nearer:
        where = f"further at {further} of its {len(other)} costs" if further else "nowhere further"
        return f"{name}: the search is nowhere nearer than it, and {where}"
    one, _ = max(gains, key=lambda pair: pair[1])
    return (
        f"{name}: the search is nearer at {nearer} of its {len(other)} costs and further at {further}; most at "
        f"{budget.said(one.cost)}, {at_cost(best, one.cost).held_out:.4f} for {one.held_out:.4f}"
    )


def sentences(budget: Budget, rows: dict[str, Row]) -> list[str]:
    """Sentences on what the winner loses, with intervals."""
    row = rows[WINNER]
    said = [
        f"winner   {row.mode}: {row.params:,} parameters, {row.compute:.1%} of the operations",
        f"It gives up {(row.value or 0) ** 2:.1%} of the variance of the features: they lie {_value(row)} of their "
        f"spread from the whole encoder's, on images that nothing was fitted to or chosen on (95 % over these).",
    ]
    if LATENCY_SECONDS in rows:
        took = rows[LATENCY_SECONDS].value or 0
        said.append(f"Measured whole it takes {budget.said(took)} on this device.")
    for name in (UNIFORM, DEPTH):
        gain = rows.get(GAIN + name.replace(" ", "_"))
        if gain is None:
            said.append(f"No {name} meets the budget.")
        elif gain.mode == row.mode:
            said.append(f"It is {name}: nothing that combines them is nearer.")
        else:
            said.append(f"The best {name} within the budget ({gain.mode}) {_verdict(gain)}: by {_value(gain)}.")
    return said


def _verdict(gain: Row) -> str:
    if gain.low is None or gain.high is None or gain.low <= 0 <= gain.high:
        return "is not further for sure"
    return "is further, for sure" if gain.low > 0 else "is nearer, for sure"


def _value(row: Row) -> str:
    return f"{row.value:.4f} ({row.low:.4f} to {row.high:.4f})"


def _content(search: Search, best: list[Measured], rows: dict[str, Row]) -> dict[str, Any]:
    """The content of --json."""
    winner = rows[WINNER]
    candidate = search.named(winner.mode)
    fields = {"error": winner.value, "low": winner.low, "high": winner.high, "params": winner.params}
    took = rows[LATENCY_SECONDS].value if LATENCY_SECONDS in rows else None
    return {
        "budget": str(search.budget),
        "winner": {**_said(candidate), **fields, "compute": winner.compute, "latency": took},
        "front": [{**_said(one.candidate), "cost": one.cost, "error": one.held_out} for one in best],
    }


def _said(candidate: Any) -> dict[str, Any]:
    return {"blocks": list(candidate.blocks), "widths": candidate.widths.ratios}


if __name__ == "__main__":
    cli.run(main)
