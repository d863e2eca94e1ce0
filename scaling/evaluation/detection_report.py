"""Scores of detection as JSON and as text."""

import math

from scaling.evaluation.detection import MEAN, DetectionTotals, mean_of_defined


def detection_report(totals: DetectionTotals) -> dict[str, object]:
    """The scores for JSON: `map`, the same under other rules, and every class; null for undefined values. `truths`
    are the counted ones, `difficult` all marked ones.
    """
    scores = totals.scores()
    means = {
        "map": scores.ap,
        "map_area": scores.ap_area,
        "map_difficult_counts": scores.ap_difficult,
        "map_stable": scores.ap_stable,
        "map_50_95": scores.ap_range,
    }
    each = {
        name: {
            "ap": number(scores.ap[name]),
            "ap_area": number(scores.ap_area[name]),
            "ap_difficult_counts": number(scores.ap_difficult[name]),
            "ap_stable": number(scores.ap_stable[name]),
            "ap_50_95": number(scores.ap_range[name]),
            "truths": totals.truths(name),
            "difficult": int(totals.matches(name).there.difficult.sum()),
            "detections": len(totals.matches(name).images),
        }
        for name in totals.classes
    }
    return {name: number(mean_of_defined(list(of.values()))) for name, of in means.items()} | {
        "images": totals.images,
        "left_out": list(totals.absent()),
        "classes": each,
    }


def detection_table(totals: DetectionTotals) -> str:
    """The scores for the terminal, with intervals over images."""
    scores, intervals = totals.scores(), totals.intervals()
    found = sum(len(totals.matches(name).images) for name in totals.classes)
    there = sum(map(totals.truths, totals.classes))
    lines = [f"{totals.images:,} images, {there:,} objects that count, {found:,} detections"]
    width = max(map(len, (*totals.classes, "class")))
    lines.append(f"  {'class':<{width}}       AP  AP area  AP50:95  objects  detections  95% interval of AP")
    columns = (scores.ap, scores.ap_area, scores.ap_range)
    rows = [
        (name, [of[name] for of in columns], totals.truths(name), len(totals.matches(name).images), intervals[name])
        for name in totals.classes
    ]
    rows.append(("mean", [mean_of_defined(list(of.values())) for of in columns], there, found, intervals[MEAN]))
    for name, values, objects, detections, (low, high) in rows:
        interval = f"  {low:.2%} to {high:.2%}" if low is not None and high is not None else ""
        shown = "  ".join("      -" if math.isnan(value) else f"{value:7.2%}" for value in values)
        lines.append(f"  {name:<{width}}  {shown}  {objects:>7,}  {detections:>10,}{interval}")
    for what, other in (
        ("where difficult objects count too", scores.ap_difficult),
        ("where equal scores keep the order of the file", scores.ap_stable),
    ):
        means = [mean_of_defined(list(of.values())) for of in (scores.ap, other)]
        if means[0] != means[1]:
            lines.append(f"mean AP {what}: {means[1]:.3%}")
    if absent := totals.absent():
        lines.append(f"left out of the means, as no object of theirs counts: {', '.join(absent)}")
    if silent := [name for name in totals.classes if totals.truths(name) and not len(totals.matches(name).images)]:
        lines.append(f"no detection, and so 0: {', '.join(silent)}")
    return "\n".join(lines)


def number(value: float) -> float | None:
    """A value for JSON: null instead of NaN."""
    return None if math.isnan(value) else float(value)
