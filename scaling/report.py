"""One page over measured rows: tables that sort and filter, and a plot whose points tell their run.

    python -m scaling.report results/ --output=report.html [--title=TEXT]
    python -m scaling.report runs/width runs/depth/rows.jsonl

Takes files, and every `rows.jsonl` and `NAME.rows.jsonl` below folders; one whose lines do not have the schema of
`scaling.core.rows` is passed over, and named. The page needs nothing but a browser; what it shows is in its address, so
that a link shows the same. --recompute computes scores, retentions and gains again from the outcomes that stand beside
scores (`scaling.evaluation.outcomes`), prints which gains stand after Holm over their file and metric (the mean over
seeds where there are several, which are drawn too), and ends with exit code 2 where a row says something else.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from scaling import cli
from scaling.analysis.page import Study, find_studies, render
from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.core.paths import check_file, user_path
from scaling.core.rows import Row
from scaling.studies.checking import can_be, gains, recompute


def define_flags(define: cli.Define) -> None:
    define.path("output", "report.html", "The page.")
    define.string("title", "", "Its title; the names of what it is made of by default.")
    define.bool("recompute", False, "Compute intervals again from the outcomes in the rows, and compare.")
    define.integer(
        "draws", 1000, "Of the bootstrap of --recompute: as many as the rows were written with.", lower_bound=1
    )


@cli.command(define_flags, words=True, resumes=False)
def main(argv: list[str], flags: cli.Flags) -> None:
    paths = [Path(user_path("", argument)) for argument in argv[1:]]
    if not paths:
        raise UserError("give folders or files of rows: python -m scaling.report results/ --output=report.html")
    studies, passed_over = find_studies(paths)
    output = check_file("output", flags.output)
    page = render(studies, flags.title or ", ".join(path.resolve().name for path in paths))
    write_whole(output, page.encode())
    for line in passed_over:
        print(f"passed over: {line}", file=sys.stderr)
    for study in studies:
        print(f"{study.name:<40} {len(study.rows):>7,} row{'s' * (len(study.rows) != 1)}")
    print(f"page {output}")
    if flags.recompute:
        _recompute(studies, flags.draws)


def _recompute(studies: Sequence[Study], draws: int) -> None:
    wrong = []
    for study in studies:
        found = list(recompute(study.rows, draws))
        astray = [one for one in found if not one.agrees]
        left = sum(map(can_be, study.rows)) - len(found)
        print(f"{study.name}: {len(found):,} numbers again, {len(astray)} differ; {left:,} cannot be (no outcomes)")
        wrong += [f"{study.name}, {_cell(one.row)}: {one.row.value} where outcomes say {one.value}" for one in astray]
        for several in gains(found).values():
            for gain in several:
                interval = "" if gain.low is None else f"({gain.low:+.4f} to {gain.high:+.4f})"
                seeds = f", {len(gain.rows)} seeds" if len(gain.rows) > 1 else ""
                words = f"{gain.value:+.4f} {interval} p {gain.p:.3g} of {len(several)}{seeds}"
                print(f"  {_cell(gain.rows[0]):<70} {words}{' *' * (gain.p < 0.05)}")
    if wrong:
        raise UserError(
            f"{len(wrong)} numbers are not what their outcomes say (or --draws={draws} is not theirs); first {wrong[0]}"
        )


def _cell(row: Row) -> str:
    parts = (row.dataset, row.probe, row.metric, row.model, row.mode, row.ordering, row.recovery)
    return " ".join((*parts, f"s={row.width_ratio:g}"))


if __name__ == "__main__":
    cli.run(main)
