"""The page in a real browser, and its parts."""

import csv
import dataclasses
import io
import itertools
import json
import re
import shutil
import time
from urllib.parse import parse_qs, quote

import pytest

from scaling.analysis.page import find_studies, render
from scaling.core.errors import UserError
from scaling.core.rows import Results, write_rows
from tests.browser import MISSING, browser
from tests.commands import call, command, error_of, run
from tests.rows import ROW


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two studies: twelve rows of three runs with two metrics, and another file."""
    made = tmp_path_factory.mktemp("results")
    rows = [
        dataclasses.replace(
            ROW,
            model=f"w{w}</script>",
            embed=w,
            params=10_000 * w,
            metric=m,
            value=v / w,
            seed=s,
            base_lr=w / 8000,
            objective="random weights",
            config_hash=f"{w:012x}",
        )
        for w in (32, 64, 128)
        for s in (0, 1)
        for m, v in (("eval_loss", 30.0 + s), ("train_seconds", 900.0))
    ]
    Results(made / "width" / "rows.jsonl").add(rows)
    Results(made / "other.rows.jsonl").add([dataclasses.replace(ROW, model="a", metric="x", value=1.0)])
    (made / "width" / "README.md").write_text(
        "# w\n\n```bash\npython -m scaling.sweep --config=x\n```\n\n```\nno\n```\n"
    )
    return made


needs_browser = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def shown(window, page, tmp_path, address="#filter="):
    """Opens a page at an address, to the end of its drawing; its own errors fail the test."""
    file = tmp_path / "page.html"
    file.write_text(page)
    window.open(f"file://{file}{address}")
    window.wait("document.querySelector('#count').value && document.querySelector('#table .table')")
    assert not window.complaints()
    return window


def page_of(folder):
    return render(find_studies([folder])[0], "results")


def points(window):
    return window.run("return plot.data.map((t) => t.visible === true ? t.x.length : 0).reduce((a, b) => a + b, 0)")


def count(window):
    return window.run("return document.querySelector('#count').value")


def cells(window):
    """The table: name of a column -> its cells, as they are shown."""
    head, values = window.run("const t = window.table.data[0]; return [t.header.values, t.cells.values]")
    return dict(zip(head, values, strict=True))


def state(window):
    return {name: values[0] for name, values in parse_qs(window.run("return location.hash.slice(1)")).items()}


def enter(window, control, value):
    script = """const e = document.getElementById(arguments[0]);
        if (e.type === "checkbox") e.checked = arguments[1]; else e.value = arguments[1];
        e.dispatchEvent(new Event("input"));"""
    window.run(script, control, value)


def press(window, selector):
    """Clicks in the middle of an element."""
    box = window.run("return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()", selector)
    at = round(box["x"] + box["width"] / 2), round(box["y"] + box["height"] / 2)
    window.mouse(("down", *at), ("up", *at))


def places(window):
    """Positions of the points in the window."""
    script = """return [...document.querySelectorAll(".scatterlayer .point")].map((e) => {
        const box = e.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; });"""
    return [(round(x), round(y)) for x, y in window.run(script)]


HOSTILE = ["<!--<script>", "<script>", "-->", "]]>", "a\u2028b", "/*DATA*/", "<!--TITLE-->", "/*LIBRARY*/", "<b>&lt;"]
WIDTH = "#study=width%2Frows.jsonl&filter="


@needs_browser
def test_no_name_in_the_data_is_taken_for_a_part_of_the_page(window, tmp_path):
    Results(tmp_path / "rows.jsonl").add([dataclasses.replace(ROW, model=name, value=1.0) for name in HOSTILE])
    program = page_of(tmp_path).split("<script>")[-1]
    assert program.count("STUDIES = ") == 1
    data = program.split("STUDIES = ")[1].split(";\n")[0]
    assert [row[0] for row in json.loads(data)[0]["values"]] == HOSTILE
    assert not re.search("[<>\u2028]", data)
    page = shown(window, page_of(tmp_path), tmp_path)
    there = page.run("return [...document.querySelectorAll('#table .cell-text')].map((e) => e.textContent)")
    assert set(HOSTILE) - {"a\u2028b"} <= set(there)
    assert not page.run("return document.querySelector('#table b, #table script')")


@needs_browser
def test_no_number_of_the_table_is_cut(window, tmp_path):
    made = [dataclasses.replace(ROW, metric="m", value=v, train_flops=10**15 + v, params=v) for v in range(1, 4)]
    Results(tmp_path / "rows.jsonl").add(made)
    page = shown(window, page_of(tmp_path), tmp_path)
    cut = """return [...document.querySelectorAll("#table .column-cell")].filter((cell) => {
        const text = cell.querySelector(".cell-text").getBoundingClientRect().width;
        return text + 4 > cell.querySelector(".cell-rect").getBoundingClientRect().width; }).length"""
    assert (page.run("return document.querySelectorAll('#table .column-cell').length"), page.run(cut)) == (4 * 3, 0)


@needs_browser
def test_every_row_is_there_with_its_origin(window, folder, tmp_path):
    page = shown(window, page_of(folder), tmp_path, WIDTH)
    assert (count(page), points(page), len(cells(page)["model"])) == ("12 of 12 rows", 12, 12)
    how = page.run("return document.querySelector('#how').textContent")
    assert "python -m scaling.sweep --config=x" in how
    assert "dataset=scenes" in how  # what all rows share is said once
    assert "no" not in how.split()


def test_one_row_alone_is_a_row_with_its_number(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(vars(dataclasses.replace(ROW, metric="loss", value=0.5))) + "\n")
    (data,) = json.loads(re.search(r"STUDIES = (.*?);?$", page_of(tmp_path), re.MULTILINE)[1])
    assert (data["columns"], data["values"]) == (["metric", "value"], [["loss", 0.5]])
    assert data["constant"]["objective"] == "mae"


@needs_browser
def test_it_opens_with_one_metric_and_another_study_has_axes_of_its_own(window, folder, tmp_path):
    page = shown(window, page_of(folder), tmp_path, "#study=width%2Frows.jsonl")
    assert (count(page), state(page)["filter"]) == ("6 of 12 rows", "metric=eval_loss")
    page = shown(window, page_of(folder), tmp_path, "#study=other.rows.jsonl&x=value&filter=a")
    enter(page, "study", "width/rows.jsonl")
    assert (count(page), state(page)["x"]) == ("6 of 12 rows", "base_lr")


@needs_browser
def test_it_opens_with_rows_along_something_and_not_with_one_column_of_dots(window, tmp_path):
    def rows(**fields):
        names, values = list(fields), list(fields.values())
        return [
            dataclasses.replace(ROW, metric="loss", value=0.5, **dict(zip(names, v, strict=True)))
            for v in itertools.product(*values)
        ]

    def opened(place, studies):
        for name, those in studies.items():
            Results(place / name / "rows.jsonl").add(those)
        found = state(shown(window, page_of(place), place, ""))
        return found["study"], found["x"], found.get("colour", ""), found.get("logx", "")

    parts = rows(step=(0, 10), embed=(32, 64, 128), parametrization=("standard", "mup"))
    assert opened(tmp_path / "a", {"a": rows(step=(0, 10)), "b": parts}) == (
        "b/rows.jsonl", "embed", "parametrization", "1",
    )  # fmt: skip
    assert opened(tmp_path / "b", {"a": rows(step=(0, 10))}) == ("a/rows.jsonl", "step", "", "")  # 0 has no logarithm


@needs_browser
def test_a_metric_of_any_name_is_shown(window, tmp_path):
    for name, metric in (("a", "macro accuracy"), ("b", 'the "best"'), ("c", "a=b")):
        made = [dataclasses.replace(ROW, metric=m, params=n, value=1.0) for m in (metric, "other") for n in (1, 2, 3)]
        Results(tmp_path / f"{name}.rows.jsonl").add(made)
    page, found = shown(window, page_of(tmp_path), tmp_path, ""), []
    for name in "abc":
        enter(page, "study", f"{name}.rows.jsonl")
        found.append(count(page))
    assert found == ["3 of 6 rows", "6 of 6 rows", "3 of 6 rows"]  # a filter has no way to say a quotation mark


def test_a_title_that_is_not_utf8_is_written_with_a_mark_in_its_place(folder):
    assert "<title>a?b</title>" in render(find_studies([folder])[0], "a\udce9b")


# What is typed into the filter, and how many rows are left.
FILTERS = {
    "metric=eval_loss embed>=64": 4, "embed<64": 4, "embed<=64": 8, "embed>64": 4, "seed!=0": 6, "w128 train": 2,
    "value>20": 2, "nothing": 0,
    "base_lr=8e-3": 4, "base_lr!=0.008": 8, "compute=1.0": 12, "params=1.28e6": 4, "params=1,280,000": 4,  # one number
    "value=0.23438": 1, "value=0.2344": 0,  # 30/128, as it is shown and not so
    "dataset=scenes": 12, "dataset=other": 0, "scenes": 12, "step=0": 12, "low=": 12,  # what all rows share
    "config_hash=000000000080": 4, "000000000080": 4, "00000": 0, "device~cpu": 12, 'device="1 x cpu"': 12,
    'objective="random weights"': 12, 'objective="random weight"': 0,
}  # fmt: skip


@needs_browser
def test_a_filter_that_is_typed_leaves_the_rows_it_says(window, folder, tmp_path):
    page = shown(window, page_of(folder), tmp_path, WIDTH)
    left = page.run("return arguments[0].map((filter) => { set({ filter }); return listed.length; })", list(FILTERS))
    assert dict(zip(FILTERS, left, strict=True)) == FILTERS
    enter(page, "filter", "value>20")
    assert (count(page), points(page), cells(page)["embed"]) == ("2 of 12 rows", 2, ["32", "32"])
    for word in ("embd=32", "embd!=32", "toString=1"):
        enter(page, "filter", word)
        assert count(page) == f"0 of 12 rows, no field {re.split('!?=', word)[0]}"


@needs_browser
def test_rows_that_have_no_place_on_the_axes_are_counted(window, folder, tmp_path):
    page = shown(window, page_of(folder), tmp_path, f"{WIDTH}&x=seed&logx=1")
    assert points(page) == 6
    said = page.run("return document.querySelector('#left').value")
    assert said == "6 of these rows are not drawn: they have not a number above 0 for both axes"


@needs_browser
def test_rows_are_sorted_either_way_and_empty_columns_left_out(window, folder, tmp_path):
    page = shown(window, page_of(folder), tmp_path, WIDTH + quote("metric=eval_loss seed=0"))
    enter(page, "sort", "value")
    up = cells(page)["embed"]
    enter(page, "down", True)
    assert (up, cells(page)["embed"]) == (["128", "64", "32"], ["32", "64", "128"])
    measured = dataclasses.replace(ROW, model="a", metric="score", value=0.5, low=0.4)
    Results(tmp_path / "rows.jsonl").add([measured, dataclasses.replace(measured, model="b", low=None)])
    page = shown(window, page_of(tmp_path), tmp_path, "#filter=model%3Da")
    assert "low" in cells(page)
    enter(page, "filter", "model=b")
    assert "low" not in cells(page)


@needs_browser
def test_a_point_tells_its_run_under_the_mouse(window, folder, tmp_path):
    page = shown(window, page_of(folder), tmp_path, WIDTH + quote("metric=eval_loss embed=32 seed=0"))
    page.mouse(("move", *places(page)[0]))
    said = page.wait("document.querySelector('.hoverlayer .hovertext')?.textContent")
    assert "embed 32" in said
    assert "config_hash 000000000020" in said


@needs_browser
def test_the_mouse_zooms_and_a_link_shows_the_same(window, folder, tmp_path):
    page = shown(window, page_of(folder), tmp_path, f"{WIDTH}metric%3Deval_loss&x=params&y=value&colour=embed")
    box = page.run("return document.querySelector('.nsewdrag').getBoundingClientRect().toJSON()")
    start, end = ((round(box["x"] + f * box["width"]), round(box["y"] + f * box["height"])) for f in (0.2, 0.7))
    page.mouse(("move", *start), ("down", *start), ("move", *end), ("up", *end))
    page.wait("new URLSearchParams(location.hash.slice(1)).get('range')")
    page.run("""document.querySelectorAll(".legendtoggle")[1].dispatchEvent(new MouseEvent("mousedown"));
        document.querySelectorAll(".legendtoggle")[1].dispatchEvent(new MouseEvent("mouseup"));""")
    page.wait("new URLSearchParams(location.hash.slice(1)).get('hidden')")
    now = "return [plot.layout.xaxis.range, plot.layout.yaxis.range, plot.data.map((t) => t.visible)]"
    ranges, address = page.run(now), page.run("return location.hash")
    assert ranges[2] == [True, "legendonly", True]
    assert shown(window, page_of(folder), tmp_path, address).run(now) == ranges
    enter(page, "logy", True)
    assert page.run("return [plot.layout.yaxis.type, plot.layout.yaxis.autorange]") == ["log", True]


@needs_browser
def test_what_is_selected_is_listed_and_saved(window, folder, tmp_path):
    page = shown(window, page_of(folder), tmp_path, f"{WIDTH}metric%3Deval_loss&x=params&y=value&colour=embed")
    page.run("return Plotly.relayout(plot, { dragmode: 'select' })")
    ends = sorted(places(page))[-2:]  # the two seeds of the widest
    start, end = (min(x for x, _ in ends) - 20, ends[0][1] - 12), (max(x for x, _ in ends) + 15, ends[1][1] + 12)
    page.mouse(("move", *start), ("down", *start), ("move", *end), ("up", *end))
    page.wait("listed.length === 2")
    assert cells(page)["embed"] == ["128", "128"]
    press(page, "#csv")
    saved = list(csv.DictReader(io.StringIO(page.saved("rows.csv"))))
    assert [(row["embed"], row["model"], row["value"]) for row in saved] == [
        ("128", "w128</script>", str(value / 128)) for value in (30.0, 31.0)
    ]
    press(page, ".modebar-btn")  # the first: a picture of the plot
    buttons = page.run("return [...document.querySelectorAll('.modebar-btn')].map((e) => e.dataset.title)")
    assert "Box Select" in buttons
    assert not [title for title in buttons if "Share" in title]  # nothing is uploaded
    picture = page.saved("plot.svg")
    assert picture.startswith("<svg")
    assert picture.count('class="point ') == 6


@needs_browser
def test_no_row_is_drawn_under_the_name_of_another_value(window, tmp_path):
    def row(n, low):
        return dataclasses.replace(ROW, metric="m", model=f"m{n:02}", params=n + 1, value=n + 0.5, low=low)

    Results(tmp_path / "rows.jsonl").add([row(n, None if n in (3, 30) else n / 100) for n in range(45)])
    page = shown(window, page_of(tmp_path), tmp_path, "#filter=&x=params&y=value&colour=model")
    drawn = "return plot.data.map((t, k) => [t.name, t.x.length, drawn[k].map((row) => row[column(state.colour)])])"
    found = page.run(drawn)
    assert found[:40] == [[f"m{n:02}", 1, [f"m{n:02}"]] for n in range(40)]
    assert found[40:] == [["5 others", 5, [f"m{n}" for n in range(40, 45)]]]
    enter(page, "colour", "low")
    (scaled, nothing) = page.run(drawn)
    assert (scaled[0], scaled[1], nothing) == ("", 43, ["nothing", 2, [None, None]])
    assert page.run("return plot.data[0].marker.color") == [n / 100 for n in range(45) if n not in (3, 30)]


@needs_browser
def test_twenty_thousand_rows_are_drawn_and_filtered(window, tmp_path):
    write_many(tmp_path / "rows.jsonl")
    page = shown(window, page_of(tmp_path), tmp_path, "")
    assert (count(page), points(page)) == ("20,000 of 20,000 rows", 20_000)
    assert page.run("return new Set(plot.data.map((t) => t.type)).size") == 1
    assert page.run("return plot.data[0].type") == "scattergl"
    assert page.run("return document.querySelector('#more').value").startswith("and 19,500 more")
    enter(page, "filter", "embed=64 params<=10000")
    assert (count(page), points(page)) == ("1,000 of 20,000 rows", 1000)
    assert page.run("return plot.data[0].type") == "scatter"


@needs_browser
@pytest.mark.long
def test_twenty_thousand_rows_open_in_two_seconds(window, tmp_path):
    write_many(tmp_path / "rows.jsonl")
    page, seconds = page_of(tmp_path), []
    window.count_seconds()
    for _ in range(3):
        began = time.monotonic()
        shown(window, page, tmp_path, "")
        seconds.append(window.seconds())
        print(f"opened in {time.monotonic() - began:.2f} s, of which {seconds[-1]:.2f} s of the processor")
    assert min(seconds) < 2


def write_many(file):
    """20,000 rows of ten widths and 2,000 sizes each."""
    made = [
        dataclasses.replace(ROW, metric="loss", embed=32 * w, params=10 * n, value=1 / w + 1 / n)
        for w in range(1, 11)
        for n in range(1, 2001)
    ]
    write_rows(file, made)


def test_files_without_rows_are_passed_over_by_name_beside_others(folder, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"topology": "v5e:8x8"}\n')
    with pytest.raises(UserError, match=r"^no rows in .*: .*rows.jsonl, its lines are not rows of measurements$"):
        find_studies([tmp_path])
    shutil.copytree(folder, tmp_path / "more")
    good = (folder / "other.rows.jsonl").read_text()
    (tmp_path / "more" / "torn.rows.jsonl").write_text(good + "{torn\n" + good)
    (tmp_path / "more" / "new.rows.jsonl").write_text("")
    studies, passed_over = find_studies([tmp_path])
    assert [study.name for study in studies] == ["more/other.rows.jsonl", "more/width/rows.jsonl"]
    assert [line.removeprefix(f"{tmp_path}/")[:55] for line in passed_over] == [
        "more/new.rows.jsonl, it has no rows",
        "more/torn.rows.jsonl, line 2, is not a row of measureme",
        "rows.jsonl, its lines are not rows of measurements",
    ]


def test_files_and_folders_can_be_mixed_and_a_file_is_there_once(folder):
    file = folder / "width" / "rows.jsonl"
    assert [study.name for study in find_studies([file])[0]] == ["rows.jsonl"]
    studies, _ = find_studies([file, folder])
    assert [study.name for study in studies] == [str(file), str(folder / "other.rows.jsonl")]


def test_a_file_that_was_asked_for_by_name_is_not_passed_over(folder, tmp_path):
    (tmp_path / "torn.rows.jsonl").write_text("{torn\n")
    with pytest.raises(UserError, match=r"torn.rows.jsonl, line 1, is not a row of measurements"):
        find_studies([folder, tmp_path / "torn.rows.jsonl"])
    with pytest.raises(UserError, match="nowhere: there is no such file or folder"):
        find_studies([folder, tmp_path / "nowhere"])


def test_the_command_writes_the_page_and_says_what_is_wrong(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "here")
    (tmp_path / "here" / "torn.rows.jsonl").write_text("{torn\n")
    done = run([*command("report", output=tmp_path / "report.html"), f"{tmp_path}/here/width/.."])
    assert done.returncode == 0, done.stderr
    assert "width/rows.jsonl" in done.stdout
    assert "passed over: " in done.stderr
    assert "torn.rows.jsonl, line 1, is not a row" in done.stderr
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "<title>here</title>" in page
    assert "give folders or files" in error_of(call(command("report")), 2)


def test_a_table_of_other_people_is_a_study(tmp_path, request):
    file = tmp_path / "theirs.csv"
    file.write_text("Model Size,loss,note\n1e6,3.0,a\n2e6,,a\n4e6,2.0,a\n8e6,1.5,a\n")
    done = call(
        [*command("report"), str(file), "--column=N=`Model Size`/1e6", "--where=N<8", f"--output={tmp_path}/p.html"]
    )
    assert (done.returncode, done.stderr) == (0, "note: --where=N<8 keeps 3 of 4 rows\n")
    (data,) = json.loads(re.search(r"STUDIES = (.*?);?$", (tmp_path / "p.html").read_text(), re.MULTILINE)[1])
    assert (data["columns"], data["constant"]) == (["Model Size", "loss", "N"], {"note": "a"})
    assert data["values"] == [[1e6, 3.0, 1.0], [2e6, None, 2.0], [4e6, 2.0, 4.0]]
    if not MISSING:
        window = request.getfixturevalue("window")
        assert points(shown(window, (tmp_path / "p.html").read_text(), tmp_path, "#x=N&y=loss")) == 2
