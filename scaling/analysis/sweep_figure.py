"""A sweep in one figure: the held-out loss over what was varied. What one line joins differs in nothing else."""

import collections
import itertools
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from scaling.analysis.canvas import new_figure, plain_numbers, save
from scaling.results import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHAPE = ("embed", "layers", "mlp")
_NUMBERS = ("base_lr", "images", *_SHAPE, "samples_seen")
_WORDS = ("dataset", "objective")
_SAME = 1.05  # runs whose compute differs by less have one budget: none can train for a part of a step

Run = dict[str, Any]


def draw_sweep(rows: Sequence[Row], path: epath.Path, metric: str = "eval_loss") -> None:
    """Writes PATH.png and PATH.svg; nothing where nothing varies.

    The horizontal axis is the first field that varies, a line is one value of each other one: of the budget where runs
    of equal compute form profiles. A star of runs has a panel for each of its arms, the others at the centre. There are
    panels for each parametrization. Seeds are a mean and a range.
    """
    found = [row for row in rows if row.metric == metric and row.value is not None]
    runs = _runs(found)
    varied = _varied(runs)
    if not varied or varied[0] in (*_WORDS, "name"):
        return
    centre = _centre_of_star(runs, varied)
    arms = list(centre) or varied[:1]
    rest = [name for name in varied if name not in arms]
    names = list(dict.fromkeys(row.parametrization for row in found))
    columns, lines = (len(arms), len(names)) if centre else (len(names), 1)
    figure = new_figure(1.5 + 4.0 * columns + (2.0 if rest else 0.0), 3.8 * lines)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    words = {level: _label(dict(zip(rest, level, strict=True))) for level in sorted({_at(run, rest) for run in runs})}
    for panel, (name, x) in zip(panels.flat, itertools.product(names, arms), strict=True):
        others = {arm: value for arm, value in centre.items() if arm != x}
        pairs = [(run, row) for run, row in zip(runs, found, strict=True) if row.parametrization == name]
        pairs = [(run, row) for run, row in pairs if _at(run, others) == tuple(others.values())]
        _axes(panel, _with_followers(x, runs), sorted({run[x] for run, _ in pairs}))
        panel.set_title(": ".join(word for word in (name, _label(others)) if word), fontsize=10)
        for i, level in enumerate(words):
            members = [(run[x], row) for run, row in pairs if _at(run, rest) == level]
            _line(panel, members, label=words[level], color=_colour(i, len(words)))
    several = len({row.seed for row in found}) > 1
    for panel in panels[:, 0]:
        panel.set_ylabel(f"{metric} (mean and range over seeds)" if several else metric)
    if rest:
        drawn = {line.get_label(): line for panel in panels.flat for line in panel.containers}
        shown = [drawn[word] for word in words.values()]
        figure.legend(handles=shown, loc="outside right upper", fontsize=7, ncols=1 + (len(shown) - 1) // 25)
    save(figure, path, ("png", "svg"))


def _at(run: Run, names: Iterable[str]) -> tuple[Any, ...]:
    return tuple(run[name] for name in names)


def _runs(rows: Sequence[Row]) -> list[Run]:
    """What may have been varied, as each run has it. The first field is the one to draw over."""
    budgets = _budgets(rows)
    numbers = (*_SHAPE, "base_lr", "images") if budgets else _NUMBERS
    runs = [{name: getattr(row, name) for name in numbers} for row in rows]
    for i, (run, row) in enumerate(zip(runs, rows, strict=True)):
        run |= {"train_flops": budgets[i]} if budgets else {}
        run |= {name: getattr(row, name) for name in _WORDS}
    keys = [(*run.values(), row.parametrization, row.seed) for run, row in zip(runs, rows, strict=True)]
    if len(set(keys)) < len(keys):  # a row does not have all that a sweep can vary: the name of the run does
        for run, row in zip(runs, rows, strict=True):
            run["name"] = _unsaid(row)
    return runs


def _budgets(rows: Sequence[Row]) -> list[float]:
    """The compute of each run, the same for all of a profile; empty where these are no profiles.

    They are where most runs are one of at least three of equal compute that differ in shape and length, and more
    lengths occur than budgets: in a grid, which has few lengths, equal compute is an accident.
    """
    groups: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: rows[i].train_flops):
        if not groups or rows[i].train_flops > _SAME * rows[groups[-1][0]].train_flops:
            groups.append([])
        groups[-1].append(i)
    shapes = [{(rows[i].embed, rows[i].layers, rows[i].mlp) for i in group} for group in groups]
    lengths = [{rows[i].samples_seen for i in group} for group in groups]
    profiles = [g for g, s, n in zip(groups, shapes, lengths, strict=True) if min(len(s), len(n)) >= 3]
    if 2 * sum(map(len, profiles)) <= len(rows) or len(set().union(*lengths)) <= len(groups):
        return []
    mean = {i: float(np.mean([rows[k].train_flops for k in group])) for group in groups for i in group}
    return [mean[i] for i in range(len(rows))]


def _unsaid(row: Row) -> str:
    """The parts of a run's name that say something else than the fields of its row: neither width64 nor mup."""
    said = [getattr(row, name) for name in (*_NUMBERS, "step", "seed")]
    known = {row.parametrization, *(f"{value:g}" for value in said), *map(str, said)}
    parts = row.model.split("_")
    return "_".join(part for part in parts if part not in known and part.lstrip(string.ascii_letters) not in known)


def _varied(runs: Sequence[Run]) -> list[str]:
    """The fields that have several values, of those that go together the first."""
    kept: list[str] = []
    for name in runs[0] if runs else ():
        if len({run[name] for run in runs}) > 1 and not any(_go_together(runs, name, other) for other in kept):
            kept.append(name)
    return kept


def _go_together(runs: Sequence[Run], a: str, b: str) -> bool:
    """Whether each of two fields follows from the other, like the hidden width in proportion to the width."""
    pairs = {(run[a], run[b]) for run in runs}
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs}) > 1


def _centre_of_star(runs: Sequence[Run], varied: Sequence[str]) -> dict[str, Any]:
    """The most frequent values of the fields of which no run has two that are different from them; often empty."""
    numbers = [name for name in varied if name in _NUMBERS]
    centre = {name: collections.Counter(run[name] for run in runs).most_common(1)[0][0] for name in numbers}
    outside = {name: {i for i, run in enumerate(runs) if run[name] != centre[name]} for name in numbers}
    best: list[str] = []
    for first in numbers:
        arms = [first]
        arms += [n for n in numbers if n != first and all(outside[n].isdisjoint(outside[arm]) for arm in arms)]
        best = max(best, arms, key=len)
    return {name: centre[name] for name in numbers if name in best} if len(best) > 1 else {}


def _with_followers(x: str, runs: Sequence[Run]) -> str:
    others = [name for name in runs[0] if name != x and _go_together(runs, name, x)]
    return f"{x} (with {', '.join(others)})" if others else x


def _label(values: Mapping[str, Any]) -> str:
    """As `embed 64, layers 4`; a word speaks for itself."""
    words = [v if isinstance(v, str) else f"{name} {v:.3g}" if isinstance(v, float) else f"{name} {v}"
             for name, v in values.items()]  # fmt: skip
    return ", ".join(words)


def _colour(i: int, count: int) -> Any:
    from matplotlib import colormaps

    return f"C{i}" if count <= 10 else colormaps["viridis"](i / (count - 1))


def _axes(panel: "Axes", label: str, ticks: list[float]) -> None:
    from matplotlib.ticker import NullLocator

    panel.set(xscale="log", yscale="log", xlabel=label)
    panel.grid(alpha=0.3, which="both")
    plain_numbers(panel.yaxis)
    if len(ticks) <= 12:
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks], rotation=45)


def _line(panel: "Axes", members: Sequence[tuple[float, Row]], **style: Any) -> None:
    """Rows at their places: means over seeds, with their range where there are several."""
    places = sorted({place for place, _ in members})
    if not places:
        return
    values = [[row.value or 0.0 for at, row in members if at == place] for place in places]
    mean = np.array([np.mean(v) for v in values])
    below_above = [mean - [min(v) for v in values], [max(v) for v in values] - mean]
    spread = (
        np.maximum(below_above, 0.0) if max(map(len, values)) > 1 else None
    )  # the mean of equal numbers is rounded too
    panel.errorbar(places, mean, spread, marker="o", markersize=4, linewidth=1, capsize=2, **style)
