"""The tests of `PLAN.md`, and the tables of the page: prints the file `tables.md` beside this one.

PYTHONPATH=. python results/slimmable/decide.py results/slimmable/rows.jsonl > results/slimmable/tables.md
"""

import itertools
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scaling.analysis.significance import holm
from scaling.analysis.tables import table
from scaling.core.rows import Row, read_rows

HERE = Path(__file__).parent
_OF = runpy.run_path(str(HERE / "scores.py"))
Scores, SETS, PROBES, OBJECTIVES = (_OF[name] for name in ("Scores", "SETS", "PROBES", "OBJECTIVES"))
KINDS, WIDTHS, CUTS = (_OF[name] for name in ("KINDS", "WIDTHS", "CUTS"))
PRIMARY = {
    "(a) slimmable - longer, both cut": ("published", "longer", "published"),
    "(b) slimmable - longer repaired": ("published", "longer", "repaired"),
}
SECONDARY = {
    "(a) at equal steps: slimmable - regular, both cut": ("published", "regular", "published"),
    "(b) at equal steps: slimmable - regular repaired": ("published", "regular", "repaired"),
    "(c) slimmable repaired - longer repaired": ("repaired", "longer", "repaired"),
}
METRICS = ("train_seconds", "eval_loss")  # of runs
PUBLISHED_SETS = ("m-eurosat", "m-bigearthnet", "m-brick-kiln", "m-so2sat")


def main() -> None:
    rows = [row for file in sys.argv[1:] for row in read_rows(file)]
    published, runs = (read_rows(HERE / name) for name in ("../published/slimming.rows.jsonl", "runs.rows.jsonl"))
    print("\n".join([*tables(Scores(rows), published), *_section("Runs: means over the seeds", _runs(runs))]))


def tables(scores: Any, published: list[Row]) -> Iterator[str]:
    """The lines of the file."""
    yield "# Tables of this study\n\nMacro accuracy in points; intervals 95 %. See `PLAN.md` for what is tested.\n"
    yield from _section("Primary tests: narrow, at equal operations", _primary(scores))
    yield from _section("Secondary: narrow", _secondary(scores))
    yield from _section("Full width: what slimmable training costs", _full(scores))
    yield from _section("MoCo minus MAE", _objectives(scores))
    yield from _section("Gate: the full encoder minus controls", _gate(scores))
    for objective, probe in itertools.product(OBJECTIVES, PROBES):
        yield from _section(
            f"{objective}, {probe}: score by width, mean of both sets", _curves(scores, objective, probe)
        )
    yield from _section("Published signs: 5-NN, slimmable minus regular, cut as published", _signs(scores, published))


def _section(title: str, rows: list[list[str]]) -> Iterator[str]:
    yield from (f"## {title}", "", *table(rows, "--:"), "")


def words(d: Any) -> str:
    """The difference with its interval."""
    return f"{d.value:+.1f} ({d.low:+.1f} to {d.high:+.1f})"


def seeds(d: Any) -> str:
    """The value of every seed."""
    return ", ".join(f"{x:+.1f}" for x in d.seeds)


def _against(scores: Any, objective: str, probe: str, test: tuple[str, str, str]) -> Any:
    own, kind, cut = test
    return scores.narrow(objective, "slimmable", own, probe).minus(scores.narrow(objective, kind, cut, probe))


def decide(scores: Any) -> list[tuple[str, str, str, Any, float, str]]:
    """(objective, probe, test, difference, p after Holm over the eight, verdict)."""
    cells = list(itertools.product(PRIMARY, OBJECTIVES, PROBES))
    found = [_against(scores, objective, probe, PRIMARY[test]).over() for test, objective, probe in cells]
    verdicts = []
    for (test, objective, probe), d, p in zip(cells, found, holm([d.p for d in found]), strict=True):
        stands = p < 0.05 and d.one_sign
        verdict = ("yes" if d.value > 0 else "no, it is worse") if stands else "not significant"
        verdicts.append((objective, probe, test, d, float(p), verdict))
    return verdicts


def _primary(scores: Any) -> list[list[str]]:
    rows = [["test", "objective, probe", "difference", "seeds 0, 1, 2", "Holm p", "better?"]]
    for objective, probe, test, d, p, verdict in decide(scores):
        rows.append([test, f"{objective}, {probe}", words(d), seeds(d), f"{p:.4f}", verdict])
    return rows


def _secondary(scores: Any) -> list[list[str]]:
    rows = [["difference", *(f"{o}, {p}" for o, p in itertools.product(OBJECTIVES, PROBES))]]
    for name, test in SECONDARY.items():
        found = [_against(scores, o, p, test).over() for o, p in itertools.product(OBJECTIVES, PROBES)]
        rows.append([name, *map(words, found)])
    return rows


def _whole(scores: Any, objective: str, probe: str, kind: str) -> Any:
    own, other = (scores.both(objective, k, "published", probe, (1.0,)) for k in ("slimmable", kind))
    return own.minus(other)


def _full(scores: Any) -> list[list[str]]:
    rows = [["slimmable minus", *(f"{o}, {p}" for o, p in itertools.product(OBJECTIVES, PROBES))]]
    for kind in ("regular", "longer"):
        found = [_whole(scores, o, p, kind).over() for o, p in itertools.product(OBJECTIVES, PROBES)]
        rows.append([kind, *map(words, found)])
    return rows


def _objectives(scores: Any) -> list[list[str]]:
    rows = [["difference of differences", *PROBES]]
    for name, test in PRIMARY.items():
        pairs = ([_against(scores, o, p, test) for o in ("moco", "mae")] for p in PROBES)
        rows.append([name, *(words(moco.over(mae)) for moco, mae in pairs)])
    for kind in ("regular", "longer"):
        pairs = ([_whole(scores, o, p, kind) for o in ("moco", "mae")] for p in PROBES)
        rows.append([f"full width: slimmable - {kind}", *(words(moco.over(mae)) for moco, mae in pairs)])
    return rows


def _gate(scores: Any) -> list[list[str]]:
    rows = [["encoder", "set, probe", "score", "depth 0", "minus hand-made", "minus random weights"]]
    where = [(dataset, probe) for probe in PROBES for dataset in SETS[probe]]
    for objective, kind, (dataset, probe) in itertools.product(OBJECTIVES, KINDS, where):
        full = scores.cut(objective, kind, "published", dataset, probe, 1.0)
        random = scores.random(dataset, probe)
        hand = scores.control("handmade", dataset, probe)
        above = full.minus(type(full)(hand.values[:1].repeat(len(full.values)), hand.draws[:1]))
        depth_0 = scores.control("depth_0", dataset, probe, f"{objective}_{kind}").values.mean()
        row = [f"{full.values.mean():.1f}", f"{depth_0:.1f}", words(above.over()), words(full.over(random))]
        rows.append([f"{objective} {kind}", f"{dataset}, {probe}", *row])
    return rows


def _curves(scores: Any, objective: str, probe: str) -> list[list[str]]:
    rows = [["", *(f"{width:g}" for width in WIDTHS)]]
    for kind, cut in itertools.product(KINDS, CUTS):
        found = (scores.both(objective, kind, cut, probe, (width,)).values.mean() for width in WIDTHS)
        rows.append([f"{kind}, {cut}", *(f"{x:.1f}" for x in found)])
    means = ([scores.random(dataset, probe, width).values.mean() for dataset in SETS[probe]] for width in WIDTHS)
    return [*rows, ["random weights", *(f"{sum(x) / len(x):.1f}" for x in means)]]


def _signs(scores: Any, published: list[Row]) -> list[list[str]]:
    rows = [["", *(f"{width:g}" for width in WIDTHS)]]
    for objective, name in zip(OBJECTIVES, ("MAE", "MoCo"), strict=True):
        for dataset in PUBLISHED_SETS:
            value = {
                (r.model.split()[-1], r.width_ratio): r.value or 0.0
                for r in published
                if (r.study, r.dataset, r.objective) == ("slimmable_training", dataset, name)
            }
            theirs = [100 * (value["slimmable", s] - value["regular", s]) for s in WIDTHS]
            rows.append([f"{objective}, published, {dataset}", *(f"{x:+.1f}" for x in theirs)])
        for dataset in reversed(SETS["knn"]):
            ours = [
                scores.cut(objective, "slimmable", "published", dataset, "knn", s)
                .minus(scores.cut(objective, "regular", "published", dataset, "knn", s))
                .over()
                for s in WIDTHS
            ]
            rows.append([f"{objective}, here, {dataset}", *map(words, ours)])
    return rows


def _runs(runs: list[Row]) -> list[list[str]]:
    rows = [["", "steps", "TFLOP", "seconds", "held-out loss, full width"]]
    for objective, kind in itertools.product(OBJECTIVES, KINDS):
        own = [row for row in runs if row.model.startswith(f"{objective}_{kind}_")]
        means = {metric: [row.value or 0.0 for row in own if row.metric == metric] for metric in METRICS}
        seconds, losses = (sum(x) / len(x) for x in means.values())
        cost = [f"{own[0].step:,}", f"{own[0].train_flops / 1e12:.1f}", f"{seconds:.0f}", f"{losses:.4f}"]
        rows.append([f"{objective} {kind}", *cost])
    return rows


if __name__ == "__main__":
    main()
