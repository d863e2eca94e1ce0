"""Conclusions that the published numbers of slimmed remote-sensing encoders support, recomputed from
`results/published`.

    PYTHONPATH=. python results/reanalysis/analyse.py

Exploratory: the analyses were chosen with the tables in view, and no p value is corrected for how many there are.
"""

from pathlib import Path

import numpy as np
from scipy import stats

from scaling.core.rows import Row, read_rows
from scaling.evaluation.scores import percentile_interval, seed_interval

ROWS = Path(__file__).parents[1] / "published" / "slimming.rows.jsonl"
# Score of an answer that ignores the image. That of m-bigearthnet, the mean share of its labels, is not published:
# about 2.9 of 43 labels an image is our inference.
CHANCE = {"m-eurosat": 1 / 10, "m-bigearthnet": 2.9 / 43, "m-brick-kiln": 1 / 2, "m-so2sat": 1 / 17}
FAMILIES = ("dofa", "terramind", "prithvi", "ssl4eo", "panopticon", "copernicus")
CLASSES = {"m-eurosat": 10, "m-bigearthnet": 43, "m-brick-kiln": 2, "m-so2sat": 17}
DRAWS, SMALLEST = 10_000, 0.001


def scores(rows: list[Row], width: float, models: list[str]) -> np.ndarray:
    """k-NN scores at a width, [models, sets]."""
    found = {
        (r.model, r.dataset): r.value
        for r in rows
        if (r.study, r.probe, r.width_ratio) == (KNN, "knn", width) and r.value
    }
    return np.array([[found[model, dataset] for dataset in CHANCE] for model in models])


KNN = "slimmable_rsfms"


def crossed_effects(table: np.ndarray) -> tuple[float, float, float]:
    """Deviations between models, between sets, and of what is left, of a table [models, sets]: mean squares of two-way
    analysis of variance without repetition, equated with what they expect (Searle et al., 1992).
    """
    models, sets = table.shape
    rows, columns, grand = table.mean(1), table.mean(0), table.mean()
    left = table - rows[:, None] - columns + grand
    error = np.square(left).sum() / ((models - 1) * (sets - 1))
    between_models = sets * np.square(rows - grand).sum() / (models - 1)
    between_sets = models * np.square(columns - grand).sum() / (sets - 1)
    variances = ((between_models - error) / sets, (between_sets - error) / models, error)
    return tuple(float(np.sqrt(max(v, 0))) for v in variances)  # type: ignore[return-value]


def families(models: list[str]) -> list[list[int]]:
    found = [[i for i, model in enumerate(models) if model.startswith(family)] for family in FAMILIES]
    return [group for group in found if group]


def family_bootstrap(table: np.ndarray, models: list[str], draw_sets: bool, seed: int = 0) -> np.ndarray:
    """Grand means [draws] of tables whose families of models, and if asked whose sets, are drawn with replacement."""
    rng, groups = np.random.default_rng(seed), families(models)
    means = []
    for _ in range(DRAWS):
        rows = [i for g in rng.integers(len(groups), size=len(groups)) for i in groups[g]]
        columns = rng.integers(table.shape[1], size=table.shape[1]) if draw_sets else np.arange(table.shape[1])
        means.append(table[np.ix_(rows, columns)].mean())
    return np.array(means)


def at_compute(rows: list[Row], model: str, dataset: str, compute: float) -> float:
    """A k-NN score between two widths, linear in relative compute (published axis)."""
    mine = sorted(
        (r.compute_published, r.value)
        for r in rows
        if (r.study, r.probe, r.model, r.dataset) == (KNN, "knn", model, dataset) and r.value
    )
    return float(np.interp(compute, *np.array(mine).T))


def main() -> None:
    rows = read_rows(ROWS)
    models = list(dict.fromkeys(r.model for r in rows if r.study == KNN and r.probe == "knn"))
    small, full = (scores(rows, width, models) for width in (SMALLEST, 1.0))
    widths = sorted({r.width_ratio for r in rows if r.study == KNN and r.probe == "knn"})
    best = np.max([scores(rows, width, models) for width in widths], axis=0)
    _retention(models, small, full, best)
    _claim(rows, models, small / full)
    _above(rows, models, small, full)
    _floor_or_model(models, small, full)
    _probes(rows)
    _chain(rows)
    _slimmable(rows)
    _dense(rows)


def _words(values: np.ndarray, to: tuple[float | None, float | None]) -> str:
    low, high = to
    return f"{np.mean(values):.3f} ({low:.3f} to {high:.3f})"


def _retention(models: list[str], small: np.ndarray, full: np.ndarray, best: np.ndarray) -> None:
    chance = np.array(list(CHANCE.values()))
    kinds = {
        "raw": small / full,
        "above chance": (small - chance) / (full - chance),
        "of the best width": small / best,
        "above chance, of the best width": (small - chance) / (best - chance),
    }
    print("1. k-NN score kept at the smallest width, ten models x four sets")
    for name, kept in kinds.items():
        per_set = " ".join(f"{dataset} {x:.3f}" for dataset, x in zip(CHANCE, kept.mean(0), strict=True))
        print(f"  {name}: mean {kept.mean():.3f}, {kept.min():.3f} to {kept.max():.3f}; {per_set}")
        model, dataset, left = crossed_effects(kept)
        print(f"    deviation between models {model:.3f}, between sets {dataset:.3f}, left {left:.3f}")
        for drawn, what in ((False, "sets fixed"), (True, "sets drawn")):
            draws = family_bootstrap(kept, models, drawn)
            print(f"    bootstrap over families, {what}: {_words(kept, percentile_interval(draws))}")
    line = stats.linregress(np.log2(list(CLASSES.values())), kinds["raw"].mean(0))
    print(
        f"    mean of a set over log2 of its classes: {line.slope:+.3f} a doubling, p {line.pvalue:.2f} (four points)"
    )
    for model, raw, above in zip(models, kinds["raw"].mean(1), kinds["above chance"].mean(1), strict=True):
        print(f"    {model:<24} raw {raw:.3f} above chance {above:.3f}")
    for eight, what in (
        (models[:8], "the eight of v2"),
        ([m for m in models if "panopticon" not in m], "without Panopticon"),
    ):
        keep = [models.index(model) for model in eight]
        print(f"    {what}: raw {kinds['raw'][keep].mean():.3f}, above chance {kinds['above chance'][keep].mean():.3f}")
    moved = [((small[:, 1] - c) / (full[:, 1] - c)).mean() for c in (0.0, 0.04, 2.9 / 43, 0.1, 0.15)]
    print("    m-bigearthnet above a chance of 0, .04, .067, .10, .15:", " ".join(f"{x:.3f}" for x in moved))


def _claim(rows: list[Row], models: list[str], kept: np.ndarray) -> None:
    print('\n2. "More than 71 % at 1 % of the FLOPs"')
    for model in models:
        floor = min(r.compute_published for r in rows if (r.study, r.model) == (KNN, model) and r.compute_published)
        lowest = kept[models.index(model)].min()
        print(f"  {model:<24} smallest compute {100 * floor:5.2f} %, lowest cell there {lowest:.3f}")
    print(f"  at its own floor: {int((kept > 0.71).sum())} of {kept.size} cells above 0.71; mean of a model above it:",
          f"{int((kept.mean(1) > 0.71).sum())} of {len(models)}; lowest cell {kept.min():.3f}")  # fmt: skip
    eight = kept[:8]
    print(f"  the eight of v2: {int((eight > 0.71).sum())} of {eight.size} cells, lowest {eight.min():.3f}")
    common = [model for model in models if "panopticon" not in model]
    for compute in (0.07, 0.15, 0.3):
        table = np.array(
            [[at_compute(rows, m, d, compute) / at_compute(rows, m, d, 1) for d in CHANCE] for m in common]
        )
        above = f"{int((table > 0.71).sum())} of {table.size} cells above"
        print(f"  nine models at {compute:.0%} of their compute: {table.mean():.3f}, lowest {table.min():.3f}, {above}")
    per_set = kept.mean(0)
    half = stats.t.ppf(0.975, len(per_set) - 1) * per_set.std(ddof=1) * np.sqrt(1 + 1 / len(per_set))
    print(f"  mean over the ten models on a new set, 95 % of such predictions: {per_set.mean() - half:.2f} to",
          f"{per_set.mean() + half:.2f} (four sets)")  # fmt: skip


def _above(rows: list[Row], models: list[str], small: np.ndarray, full: np.ndarray) -> None:
    print("\n3. What all blocks add to the smallest width, points, and how much of it a cut keeps (ratio of sums)")
    gain = full - small
    draws = 100 * family_bootstrap(gain, models, True)
    print(f"  all: {100 * gain.mean():.1f} ({np.quantile(draws, 0.025):.1f} to {np.quantile(draws, 0.975):.1f})")
    for i, dataset in enumerate(CHANCE):
        print(
            f"  {dataset}: {100 * gain[:, i].mean():.1f} ({100 * gain[:, i].min():.1f} to {100 * gain[:, i].max():.1f})"
        )
    for width in (0.1, 0.25, 0.5):
        more = scores(rows, width, models) - small
        per_set = " ".join(f"{more[:, i].sum() / gain[:, i].sum():.2f}" for i in range(4))
        print(f"  s = {width}: {more.sum() / gain.sum():.2f} ({per_set})")


def _floor_or_model(models: list[str], small: np.ndarray, full: np.ndarray) -> None:
    print("\n4. Slope of log smallest on log full over models (1: a share of the model's; 0: a floor of the probe's)")
    x, y = np.log(full), np.log(small)

    def slope(x: np.ndarray, y: np.ndarray) -> float:
        """Pooled over the sets, each with a level of its own."""
        x, y = x - x.mean(0), y - y.mean(0)
        return float((x * y).sum() / np.square(x).sum())

    rng, groups = np.random.default_rng(0), families(models)
    drawn = []
    for _ in range(DRAWS):
        keep = [i for g in rng.integers(len(groups), size=len(groups)) for i in groups[g]]
        drawn.append(slope(x[keep], y[keep]) if len(set(keep)) > 1 else np.nan)
    print(f"  pooled {slope(x, y):+.2f} ({' to '.join(f'{end:+.2f}' for end in percentile_interval(drawn))})")
    for i, dataset in enumerate(CHANCE):
        rank = stats.spearmanr(full[:, i], small[:, i])
        own = slope(x[:, i : i + 1], y[:, i : i + 1])
        print(f"  {dataset}: {own:+.2f}, rank correlation {rank.statistic:+.2f} (p {rank.pvalue:.2f})")
    left = [k for k, model in enumerate(models) if "panopticon" not in model]
    print(f"  without Panopticon {slope(x[left], y[left]):+.2f}")
    spread = [small.std(0, ddof=1) / small.mean(0), full.std(0, ddof=1) / full.mean(0)]
    print("  spread over models, smallest / full:", " ".join(f"{a:.2f}/{b:.2f}" for a, b in zip(*spread, strict=True)))


def _curve(rows: list[Row], **fields: object) -> dict[float, float]:
    found = [r for r in rows if all(getattr(r, name) == value for name, value in fields.items())]
    return {r.width_ratio: float(r.value or 0) for r in found}


def _probes(rows: list[Row]) -> None:
    print("\n5. Other probes minus k-NN, points, smallest and full width; what each keeps")
    for probe in ("linear", "finetune"):
        differences = []
        for model, dataset in dict.fromkeys((r.model, r.dataset) for r in rows if (r.study, r.probe) == (KNN, probe)):
            knn, other = (_curve(rows, study=KNN, model=model, dataset=dataset, probe=p) for p in ("knn", probe))
            at = [100 * (other[w] - knn[w]) for w in (SMALLEST, 1.0)]
            differences.append(at)
            kept = knn[SMALLEST] / knn[1.0], other[SMALLEST] / other[1.0]
            words = f"{at[0]:+6.1f} {at[1]:+6.1f}   kept {kept[0]:.2f} -> {kept[1]:.2f}"
            print(f"  {probe:<8} {model:<20} {dataset:<14} {words}")
        low, high = np.mean(differences, axis=0)
        print(f"  {probe} minus k-NN, mean of {len(differences)}: {low:+.1f} and {high:+.1f}")
    print("  m-so2sat, kept by the same models and classes under two splits (Cultural-10, random)")
    for model in dict.fromkeys(r.model for r in rows if r.study == "slimmable_rsfms_splits"):
        kept = []
        for split in dict.fromkeys(r.split for r in rows if r.study == "slimmable_rsfms_splits"):
            curve = _curve(rows, study="slimmable_rsfms_splits", model=model, split=split)
            floor = [(curve[SMALLEST] - c) / (curve[1.0] - c) for c in (0.0, CHANCE["m-so2sat"])]
            kept.append(f"{floor[0]:.2f} (above chance {floor[1]:.2f})")
        print(f"    {model:<20}", " -> ".join(kept))


def _chain(rows: list[Row]) -> None:
    print("\n6. From a vision model on ImageNet-100 to remote-sensing models on their sets, kept in the lowest bin")
    where = {"study": "slimmable_rsfms_bins", "probe": "knn"}

    def at(compute: float, **fields: str) -> float:
        (value,) = [r.value for r in rows if r.compute_published == compute and all(
            getattr(r, k) == v for k, v in (where | fields).items())]  # fmt: skip
        return float(value or 0)

    kept = lambda model: at(0.0, model=model, metric="macro_accuracy") / at(1.0, model=model, metric="macro_accuracy")  # noqa: E731
    steps = {
        "MAE of photographs, ImageNet-100": at(0.0, model="CV MAE", dataset="ImageNet-100", metric="retention"),
        "the same, ImageNet-10 (classes)": at(0.0, model="CV MAE", dataset="ImageNet-10", metric="retention"),
        "the same, m-eurosat (probed domain)": kept("CV MAE"),
        "RS models, m-eurosat (pretraining, data and method)": kept("RS FMs"),
        "RS models, four sets": at(0.0, model="RS FMs", dataset="4 RS sets", metric="retention"),
    }
    before = None
    for name, value in steps.items():
        print(f"  {value:.3f}  {name}" + (f"   factor {value / before:.2f}" if before else ""))
        before = value
    first, *_, last = steps.values()
    print(f"  in all {last / first:.1f}; DINOv2, ImageNet-10: {at(0.0, model='CV DINOv2', metric='retention'):.3f}")


def _slimmable(rows: list[Row]) -> None:
    print("\n7. Slimmable minus regular training, k-NN points, mean over the widths (smallest, full)")
    for objective in ("MAE", "MoCo"):
        means = []
        for dataset in CHANCE:
            regular, slim = (
                _curve(
                    rows,
                    study="slimmable_training",
                    objective=objective,
                    dataset=dataset,
                    model=f"vit_b {objective} {how}",
                )
                for how in ("regular", "slimmable")
            )
            difference = {w: 100 * (slim[w] - regular[w]) for w in regular}
            means.append(np.mean(list(difference.values())))
            signs = sum(x > 0 for x in difference.values())
            ends = f"{difference[SMALLEST]:+.1f}, {difference[1.0]:+.1f}"
            print(
                f"  {objective} {dataset:<14} {means[-1]:+5.1f} ({ends}); better at {signs} of {len(difference)} widths"
            )
        low, high = seed_interval(means)
        print(f"  {objective} over the four sets: {np.mean(means):+.1f} ({low:.1f} to {high:.1f}), one run each")


def _dense(rows: list[Row]) -> None:
    print("\n8. Dense tasks: full minus smallest width, points of mIoU, eight models, one run each")
    dense = [r for r in rows if r.metric == "miou"]
    for dataset in dict.fromkeys(r.dataset for r in dense):
        models = list(dict.fromkeys(r.model for r in dense))
        small, full = (np.array([_curve(dense, model=m, dataset=dataset)[w] for m in models]) for w in (SMALLEST, 1.0))
        gain = 100 * (full - small)[:, None]
        low, high = percentile_interval(family_bootstrap(gain, models, False))
        words = f"{gain.mean():+.1f} ({low:+.1f} to {high:+.1f}), {gain.min():+.1f} to {gain.max():+.1f}"
        print(f"  {dataset:<14} {words}, {int((gain > 0).sum())} of 8 above zero; kept {np.mean(small / full):.2f}")


if __name__ == "__main__":
    main()
