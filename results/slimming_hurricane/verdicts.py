"""Tests of the claims of this study on its rows: shares kept above several floors, Holm, spectra, fine-tuning, a law.

python results/slimming_hurricane/verdicts.py
"""

from pathlib import Path

import numpy as np
from scipy import stats

from scaling.analysis.significance import holm, p_of_interval
from scaling.core.rows import Row, read_rows

HERE = Path(__file__).parent
SCORE = "macro_accuracy"
CUTS = {"published": ("first", "none"), "repaired": ("svd", "ridge")}


def main() -> None:
    rows, matched, tuned = (read_rows(HERE / f"{name}.rows.jsonl") for name in ("rssccn7", "matched", "finetuned"))
    print("Kept at s = 0.1, published / repaired, in percent of what the full encoder has")
    for name, there in (("rssccn7", rows), *((f"matched {d}", _of(matched, dataset=d)) for d in _sets(matched))):
        _floors(name, there)
    print("\nFull encoder minus hand-made features, points, unpaired (no outcomes of the encoder were kept)")
    _handmade(rows, matched, read_rows(HERE / "floors.rows.jsonl"))
    print("\nGains of the repaired cut over the published one, points, p after Holm over the table")
    _gains("rssccn7", rows)
    _gains("matched", matched)
    print("\nSpearman correlation with the score over the cuts of rssccn7")
    _spectra(rows)
    print("\nFine-tuned minus linear probe of the same encoder, points")
    _finetuned(matched, tuned)
    print("\n`mean` minus the same ordering without it, s = 0.02, 0.05, 0.1, k-NN points (rssccn7)")
    for ordering in ("first", "last", "random", "energy", "svd"):
        pair = ([_score(rows, "knn", ordering, r, s) for s in (0.02, 0.05, 0.1)] for r in ("mean", "none"))
        print(f"  {ordering:<8}", *(f"{100 * (a - b):+.1f}" for a, b in zip(*pair, strict=True)))
    print("\nCompute at which 90 % is kept above chance, k-NN, rssccn7, error of the images in it")
    _law(rows)


def _sets(rows: list[Row]) -> list[str]:
    return sorted({row.dataset for row in rows}, reverse=True)


def _of(rows: list[Row], **fields: object) -> list[Row]:
    return [row for row in rows if all(getattr(row, name) == value for name, value in fields.items())]


def _one(rows: list[Row], **fields: object) -> Row:
    found = {row.value: row for row in _of(rows, **fields)}  # controls of a study that was run twice stand twice
    assert len(found) == 1, (fields, len(found))
    return next(iter(found.values()))


def _score(
    rows: list[Row], probe: str, ordering: str, recovery: str, width: float, model: str = "hurricane_ti8"
) -> float:
    where = {"probe": probe, "metric": SCORE, "model": model, "mode": "inner"}
    return float(_one(rows, **where, ordering=ordering, recovery=recovery, width_ratio=width).value or 0)


def _floors(name: str, rows: list[Row]) -> None:
    for probe in ("knn", "linear"):
        full = _score(rows, probe, "first", "none", 1.0)
        floors = {"nothing (raw)": 0.0, "chance": 1 / 7}
        for control in ("depth_0", "band_statistics"):
            floors[control] = float(_one(rows, probe=probe, metric=SCORE, mode="control", ordering=control).value or 0)
        floors["random weights"] = _score(rows, probe, "first", "none", 1.0, "random_weights")
        cuts = [_score(rows, probe, *CUTS[cut], 0.1) for cut in CUTS]
        print(f"  {name}, {probe}: full {100 * full:.1f}, cuts {100 * cuts[0]:.1f} / {100 * cuts[1]:.1f}")
        for floor, value in floors.items():
            kept = " / ".join(f"{100 * (cut - value) / (full - value):.0f}" for cut in cuts)
            print(f"    above {floor:<16} {100 * value:5.1f}: {kept}")


def _handmade(rows: list[Row], matched: list[Row], floors: list[Row]) -> None:
    sets = {"rssccn7": rows, **{f"matched {d}": _of(matched, dataset=d) for d in _sets(matched)}}
    for name, there in sets.items():
        for probe in ("knn", "linear"):
            cell = {"probe": probe, "metric": SCORE, "model": "hurricane_ti8", "mode": "inner"}
            full = _one(there, **cell, ordering="first", recovery="none", width_ratio=1.0)
            for floor in ("handmade", "gradient_histogram", "raw_pixels"):
                mine = _one(floors, dataset=name, probe=probe, metric=SCORE, ordering=floor)
                half = np.hypot(*((row.high or 0) - (row.low or 0) for row in (full, mine))) / 2
                apart = (full.value or 0) - (mine.value or 0)
                words = f"{100 * apart:+.1f} ({100 * (apart - half):.1f} to {100 * (apart + half):.1f})"
                scores = f"{100 * (full.value or 0):.1f} - {floor} {100 * (mine.value or 0):.1f}"
                print(f"  {name}, {probe}: {scores} = {words}")


def _gains(name: str, rows: list[Row]) -> None:
    where = {"metric": f"{SCORE}_gain", "ordering": "svd", "recovery": "ridge", "mode": "inner"}
    found = sorted(
        (row for row in _of(rows, **where) if row.width_ratio < 1),
        key=lambda row: (row.dataset, row.probe, row.width_ratio),
    )
    values = [(row.value, row.low, row.high) for row in found]
    adjusted = holm(p_of_interval(*np.array(values, float).T))
    print(f"  {name}: {len(found)} tests, {int((adjusted < 0.05).sum())} stand")
    for row, (value, low, high), p in zip(found, values, adjusted, strict=True):
        if low * high > 0:
            gain = f"{100 * value:+.1f} ({100 * low:.1f} to {100 * high:.1f})"
            print(f"    {row.dataset} {row.probe} s = {row.width_ratio:g}: {gain}, p {p:.2g}")


def _spectra(rows: list[Row]) -> None:
    cuts = [row for row in _of(rows, model="hurricane_ti8", mode="inner") if row.width_ratio < 1]
    key = lambda row: (row.ordering, row.recovery, row.width_ratio)  # noqa: E731
    for metric in ("mean_feature_correlation", "relative_error", "participation_ratio"):
        mine = {key(row): row.value for row in _of(cuts, metric=metric)}
        for probe in ("knn", "linear"):
            score = {key(row): row.value for row in _of(cuts, probe=probe, metric=SCORE)}
            cells = sorted(score)
            whole = _spearman([mine[cell] for cell in cells], [score[cell] for cell in cells])
            within = []
            for width in sorted({cell[2] for cell in cells}):
                there = [cell for cell in cells if cell[2] == width]
                within.append(_spearman([mine[cell] for cell in there], [score[cell] for cell in there]))
            words = " ".join(f"{r:+.2f}" for r in within)
            print(f"  {metric:<25} {probe:<7} {whole:+.2f} over {len(cells)} cuts; within a width {words}")


def _spearman(a: list[float | None], b: list[float | None]) -> float:
    return float(stats.spearmanr(a, b).statistic)


def _finetuned(matched: list[Row], tuned: list[Row]) -> None:
    for dataset in _sets(tuned):
        linear, fine = _of(matched, dataset=dataset), _of(tuned, dataset=dataset)
        for cut, (ordering, recovery) in CUTS.items():
            after, before = (_score(x, p, ordering, recovery, 0.1) for x, p in ((fine, "finetune"), (linear, "linear")))
            kept = _one(fine, model="hurricane_ti8", ordering=ordering, metric=f"{SCORE}_retention").value or 0
            above = _one(fine, model="hurricane_ti8", ordering=ordering, metric=f"{SCORE}_retention_above_chance").value
            whole = after / kept - _score(linear, "linear", "first", "none", 1.0)
            print(
                f"  {dataset} {cut}: {100 * (after - before):+.1f}, full encoder {100 * whole:+.1f}; "
                f"kept {100 * kept:.0f} % raw, {100 * (above or 0):.0f} % above chance"
            )


def _law(rows: list[Row], draws: int = 400) -> None:
    """Each width's share is drawn from a normal of its own interval and the law is fitted again: with errors that the
    widths do not share, and with one error for all. The truth lies between: they share the images and the full encoder.
    """
    rng = np.random.default_rng(0)
    for cut, (ordering, recovery) in CUTS.items():
        where = {"probe": "knn", "metric": f"{SCORE}_retention_above_chance", "model": "hurricane_ti8", "mode": "inner"}
        found = {r.compute: r for r in _of(rows, **where, ordering=ordering, recovery=recovery) if r.width_ratio < 1}
        x = np.array(sorted(found))
        share, low, high = (np.array([getattr(found[c], f) for c in x], float) for f in ("value", "low", "high"))
        deviation, words = (high - low) / (2 * stats.norm.ppf(0.975)), []
        laws, at = _laws(x)

        def x90(shares: np.ndarray, laws: np.ndarray = laws, at: np.ndarray = at) -> float:
            return float(at[np.square(laws - shares).sum(1).argmin()])

        for kind, size in (("own errors", len(x)), ("one error", 1)):
            drawn = [x90(share + deviation * rng.standard_normal(size)) for _ in range(draws)]
            words.append(f"{kind} {' to '.join(f'{end:.2g}' for end in np.quantile(drawn, [0.025, 0.975]))}")
        print(f"  {cut}: {x90(share):.3f}, 95 % of {', '.join(words)}; smallest cut measured {x[0]:.4f}")


def _laws(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(1 - exp(-u x^k)) / (1 - exp(-u)) for a grid of u and k [laws, x], and where each of them is 0.9 [laws]."""
    u = np.geomspace(0.001, 30, 120)[:, None, None]
    k = np.geomspace(0.005, 1.5, 500)[:, None]
    at = (-np.log1p(0.9 * np.expm1(-u)) / u) ** (1 / k)
    return (np.expm1(-u * x**k) / np.expm1(-u)).reshape(-1, len(x)), at.ravel()


if __name__ == "__main__":
    main()
