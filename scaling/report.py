"""One page over measured rows: tables that sort and filter, and a plot whose points tell their run.

    python -m scaling.report results/ --output=report.html [--title=TEXT]

Takes every `rows.jsonl` and `NAME.rows.jsonl` below the folder whose lines have the schema of `scaling.results`. The
page needs nothing but a browser; what it shows is in its address, so that a link shows the same.
"""

from pathlib import Path

from absl import flags

from scaling import cli
from scaling.analysis.page import find_studies, render
from scaling.errors import UserError
from scaling.paths import check_file

_OUTPUT = flags.DEFINE_string("output", "report.html", "The page.")
_TITLE = flags.DEFINE_string("title", "", "Its title; the name of the folder by default.")


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise UserError("give one folder: python -m scaling.report results/ --output=report.html")
    folder = Path(argv[1])
    studies = find_studies(folder)
    output = check_file("output", _OUTPUT.value)
    output.write_text(render(studies, _TITLE.value or folder.name))
    for study in studies:
        print(f"{study.name:<40} {len(study.rows):>7,} rows")
    print(f"page {output}")


if __name__ == "__main__":
    cli.run(main)
