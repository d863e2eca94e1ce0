"""One HTML page of measured rows: a table that can be sorted and filtered, and a plot that shows the run of each point.

    python -m scaling.report results/ --output=report.html [--title=TEXT]
    python -m scaling.report runs/width runs/depth/rows.jsonl
    python -m scaling.report THEIRS.csv --column='N=`Model Size`' --where='loss<5'

Takes files, and folders with every `rows.jsonl` and `NAME.rows.jsonl` below them; a file that does not have the schema
of `scaling.core.rows` is skipped and listed. For a folder without rows the page shows the final and best values of the
runs below it. Tables of any columns are shown too, with --column and --where as in `scaling.laws`. The page includes
plotly, so it needs only a browser: zoom, select and hide with the mouse, save rows as CSV and the plot as SVG. Its URL
encodes the current view. --recompute computes scores, retentions and gains again from the outcomes stored with the
scores (`scaling.evaluation.outcomes`), and exits with code 2 if a stored value disagrees with the recomputed one. It
also prints which gains are significant after Holm correction within their file and metric; with several seeds it tests
their mean, and resamples seeds as well.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from etils import epath

from scaling import cli
from scaling.analysis.frames.expressions import keep, made, with_columns
from scaling.analysis.frames.reading import Frame, is_own, read_frame
from scaling.analysis.page import Study, find_studies, of_table, render
from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.core.paths import check_file, user_path
from scaling.core.rows import Row
from scaling.studies.checking import can_be, gains, recompute
from scaling.studies.measurements import has_runs_only, read_measurements


def define_flags(define: cli.Define) -> None:
    define.path("output", "report.html", "File for the page.")
    define.string("title", "", "Title of the page; by default the names of its inputs.")
    define.multi_string("column", [], "NAME=EXPRESSION: a column of a table, computed from others.")
    define.multi_string("where", [], "Rows of tables to keep: NAME=VALUE, NAME<NUMBER, …")
    define.bool("recompute", False, "Compute intervals again from the outcomes in the rows, and compare.")
    define.integer(
        "draws",
        1000,
        "Bootstrap draws of --recompute; must equal those that the rows were written with.",
        lower_bound=1,
    )


@cli.command(define_flags, words=True, resumes=False)
def main(argv: list[str], flags: cli.Flags) -> None:
    paths = [Path(user_path("", argument)) for argument in argv[1:]]
    if not paths:
        raise UserError("give folders or files of rows: python -m scaling.report results/ --output=report.html")
    output = check_file("output", flags.output, {"an input": paths})
    studies, passed_over = _studies(paths, flags)
    page = render(studies, flags.title or ", ".join(path.resolve().name for path in paths))
    write_whole(output, page.encode())
    for line in passed_over:
        print(f"note: {line}" if " keeps " in line else f"passed over: {line}", file=sys.stderr)
    for study in studies:
        print(f"{study.name:<40} {len(study):>7,} row{'s' * (len(study) != 1)}")
    print(f"page {output}")
    if flags.recompute:
        _recompute(studies, flags.draws)


def _studies(paths: Sequence[Path], flags: cli.Flags) -> tuple[list[Study], list[str]]:
    """The rows and tables of all paths, and the runs of folders without rows; also the messages on skipped files."""
    studies, said, own = list[Study](), list[str](), list[Path]()
    for path in map(epath.Path, paths):
        if path.is_file() and not is_own(path):
            frame = read_frame(path)
            data, notes = keep(with_columns(frame.data, made(flags.column)), flags.where)
            studies.append(of_table(path, Frame(data)))
            said += [*frame.notes, *notes]
        elif path.is_dir() and has_runs_only(path):
            rows, left_out = read_measurements(path)
            said += left_out
            studies.append(of_table(path, rows) if isinstance(rows, Frame) else Study(path.name, rows, ""))
        else:
            own.append(Path(path))
    if (flags.column or flags.where) and not any(study.table is not None for study in studies):
        raise UserError(
            "--column and --where apply only to tables of any columns; filter rows of this package on the page"
        )
    found, passed_over = find_studies(own) if own else ([], [])
    return [*studies, *found], [*said, *passed_over]


def _recompute(studies: Sequence[Study], draws: int) -> None:
    wrong = []
    for study in studies:
        found = list(recompute(study.rows, draws))
        astray = [one for one in found if not one.agrees]
        left = sum(map(can_be, study.rows)) - len(found)
        print(
            f"{study.name}: {len(found):,} numbers recomputed, {len(astray)} differ; {left:,} cannot be recomputed (no "
            "outcomes)"
        )
        wrong += [f"{study.name}, {_cell(one.row)}: {one.row.value} where outcomes say {one.value}" for one in astray]
        for several in gains(found).values():
            for gain in several:
                interval = "" if gain.low is None else f"({gain.low:+.4f} to {gain.high:+.4f})"
                seeds = f", {len(gain.rows)} seeds" if len(gain.rows) > 1 else ""
                words = f"{gain.value:+.4f} {interval} p {gain.p:.3g} of {len(several)}{seeds}"
                print(f"  {_cell(gain.rows[0]):<70} {words}{' *' * (gain.p < 0.05)}")
    if wrong:
        raise UserError(
            f"{len(wrong)} numbers disagree with their outcomes (or were written with other --draws than {draws}); the "
            f"first: {wrong[0]}"
        )


def _cell(row: Row) -> str:
    parts = (row.dataset, row.probe, row.metric, row.model, row.mode, row.ordering, row.recovery)
    return " ".join((*parts, f"s={row.width_ratio:g}"))


if __name__ == "__main__":
    cli.run(main)
