"""Prints what README.md says of the rows beside it: means over seeds, and differences paired by seed.

PYTHONPATH=. python results/segmentation/verdicts.py
"""

from pathlib import Path

import numpy as np
from scipy import stats

from scaling.core.rows import read_rows

PAIRS = (
    ("pretrained", "random"),
    ("frozen", "noise"),
    ("noise", "embedding"),
    ("pretrained", "frozen"),
    ("cut", "frozen"),
    ("repaired", "cut"),
    ("cut", "noise"),
)


def main() -> None:
    for path in sorted(Path(__file__).parent.glob("*.rows.jsonl")):
        rows = [row for row in read_rows(path) if row.metric == "miou"]
        for images in sorted({row.images for row in rows}):
            print(f"{path.name.split('.')[0]}, {images} images, mIoU %")
            _differences({(row.model.split()[-1], row.seed): 100 * row.value for row in rows if row.images == images})


def _differences(scores: dict[tuple[str, int], float]) -> None:
    names = dict.fromkeys(name for name, _ in scores)
    for name in names:
        values = [score for (of, _), score in scores.items() if of == name]
        print(f"  {name:<12}{np.mean(values):6.1f}  {min(values):.1f} to {max(values):.1f}, {len(values)} seeds")
    for one, other in (pair for pair in PAIRS if set(pair) <= set(names)):
        seeds = sorted(seed for name, seed in scores if name == one and (other, seed) in scores)
        apart = np.array([scores[one, seed] - scores[other, seed] for seed in seeds])
        half = stats.t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart))
        print(f"  {one} - {other}: {apart.mean():+.1f} ({apart.mean() - half:+.1f} to {apart.mean() + half:+.1f})")


if __name__ == "__main__":
    main()
