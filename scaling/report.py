"""One page over measured rows: tables that sort and filter, and a plot whose points tell their run.

    python -m scaling.report results/ --output=report.html [--title=TEXT]
    python -m scaling.report runs/width runs/depth/rows.jsonl

Takes files, and every `rows.jsonl` and `NAME.rows.jsonl` below folders; one whose lines do not have the schema of
`scaling.core.rows` is passed over, and named. The page needs nothing but a browser; what it shows is in its address, so
that a link shows the same.
"""

import sys
from pathlib import Path

from scaling import cli
from scaling.analysis.page import find_studies, render
from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.core.paths import check_file, user_path


def define_flags(define: cli.Define) -> None:
    define.path("output", "report.html", "The page.")
    define.string("title", "", "Its title; the names of what it is made of by default.")


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


if __name__ == "__main__":
    cli.run(main)
