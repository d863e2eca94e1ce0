"""The page in a real browser, and its parts."""

import dataclasses
import html
import itertools
import json
import re
import shutil
import subprocess
from urllib.parse import quote

import pytest

from scaling.analysis.page import find_studies, render
from scaling.core.errors import UserError
from scaling.core.rows import Results
from tests.commands import call, command, error_of, run
from tests.rows import ROW

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


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


def shown(page, tmp_path, script="", address=""):
    """The document in a browser after a script has run in the page, without errors."""
    if BROWSER is None:
        pytest.skip("needs Chromium (Debian's package chromium)")
    file = tmp_path / "page.html"
    file.write_text(page + f"<script>{script}</script>")
    done = subprocess.run(
        [BROWSER, *QUIET, f"--user-data-dir={tmp_path / 'browser'}", "--enable-logging=stderr",
         "--virtual-time-budget=3000", "--dump-dom", f"file://{file}{address}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    body = done.stdout[done.stdout.index("<body") :] if "<body" in done.stdout else done.stdout
    return re.sub(r"<script.*?</script>", "", body, flags=re.DOTALL)


def page_of(folder):
    return render(find_studies([folder])[0], "results")


HOSTILE = ["<!--<script>", "<script>", "-->", "]]>", "a\u2028b", "/*DATA*/", "<!--TITLE-->"]


def test_no_name_in_the_data_is_taken_for_a_part_of_the_page(tmp_path):
    Results(tmp_path / "rows.jsonl").add([dataclasses.replace(ROW, model=name, value=1.0) for name in HOSTILE])
    program = page_of(tmp_path).split("<script>")[-1]
    assert "STUDIES = " in program  # the only one there is
    data = program.split("STUDIES = ")[1].split(";\n")[0]
    assert [row[0] for row in json.loads(data)[0]["values"]] == HOSTILE
    assert not re.search("[<>\u2028]", data)
    page = html.unescape(shown(page_of(tmp_path), tmp_path))
    assert all(f">{name}</td>" in page for name in HOSTILE)


def models(page):
    """The first cell of every line of the table."""
    return re.findall(r"<tr><td[^>]*>([^<]*?)&lt;", page)


WIDTH = "#study=width%2Frows.jsonl&filter="


def test_every_row_is_there_with_its_origin(folder, tmp_path):
    page = shown(page_of(folder), tmp_path, address=WIDTH)
    assert "12 of 12 rows" in page
    assert page.count("<circle") == 12
    assert "python -m scaling.sweep --config=x" in page
    assert "dataset=scenes" in page  # what all rows share is said once
    assert ">no<" not in page


def test_one_row_alone_is_a_row_with_its_number(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(vars(dataclasses.replace(ROW, metric="loss", value=0.5))) + "\n")
    (data,) = json.loads(re.search(r"STUDIES = (.*?);?$", page_of(tmp_path), re.MULTILINE)[1])
    assert (data["columns"], data["values"]) == (["metric", "value"], [["loss", 0.5]])
    assert data["constant"]["objective"] == "mae"


def test_it_opens_with_one_metric(folder, tmp_path):
    page = shown(page_of(folder), tmp_path, address="#study=width%2Frows.jsonl")
    assert "6 of 12 rows" in page


def opened(tmp_path, rows):
    """The page of files of rows: the file it opens with, its axes and colour, and whether x is logarithmic."""
    for name, those in rows.items():
        Results(tmp_path / name / "rows.jsonl").add(those)
    state = 'document.body.append("state " + JSON.stringify(state) + " end");'
    said = re.search(r"state ({.*}) end", html.unescape(shown(page_of(tmp_path), tmp_path, state)))[1]
    found = json.loads(said)
    return found["study"], found["x"], found["colour"], found["logx"]


def test_it_opens_with_rows_along_something_and_not_with_one_column_of_dots(tmp_path):
    def rows(**fields):
        names, values = list(fields), list(fields.values())
        return [
            dataclasses.replace(ROW, metric="loss", value=0.5, **dict(zip(names, v, strict=True)))
            for v in itertools.product(*values)
        ]

    parts = rows(step=(0, 10), embed=(32, 64, 128), parametrization=("standard", "mup"))
    assert opened(tmp_path / "a", {"a": rows(step=(0, 10)), "b": parts}) == (
        "b/rows.jsonl", "embed", "parametrization", "1",
    )  # fmt: skip
    assert opened(tmp_path / "b", {"a": rows(step=(0, 10))}) == ("a/rows.jsonl", "step", "", "")  # 0 has no logarithm


@pytest.mark.parametrize("metric", ["macro accuracy", 'the "best"', "a=b"])
def test_a_metric_of_any_name_is_shown(tmp_path, metric):
    made = [dataclasses.replace(ROW, metric=m, params=n, value=1.0) for m in (metric, "other") for n in (1, 2, 3)]
    Results(tmp_path / "rows.jsonl").add(made)
    rows = 6 if '"' in metric else 3  # a filter has no way to say a quotation mark
    assert f"{rows} of 6 rows" in shown(page_of(tmp_path), tmp_path)


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


def test_a_filter_that_is_typed_leaves_the_rows_it_says(folder, tmp_path):
    type_them = """
        const box = document.querySelector("#filter"), left = {};
        for (const text of %s) {
            box.value = text;
            box.dispatchEvent(new Event("input"));
            const count = document.querySelector("#count").value, all = (s) => document.querySelectorAll(s).length;
            left[text] = [parseInt(count), all("circle"), all("tbody tr")];
        }
        document.body.append("left " + JSON.stringify(left) + " end");
    """
    page = shown(page_of(folder), tmp_path, type_them % json.dumps(list(FILTERS)), WIDTH)
    left = json.loads(html.unescape(re.search(r"left ({.*}) end", page)[1]))
    assert left == {text: [rows, rows, rows] for text, rows in FILTERS.items()}


@pytest.mark.parametrize("word", ["embd=32", "embd!=32", "toString=1"])
def test_a_filter_for_a_field_that_does_not_exist_says_so(folder, tmp_path, word):
    page = shown(page_of(folder), tmp_path, address=WIDTH + quote(word))
    assert f"0 of 12 rows, no field {re.split('!?=', word)[0]}<" in page


def test_rows_that_have_no_place_on_the_axes_are_counted(folder, tmp_path):
    page = shown(page_of(folder), tmp_path, address=WIDTH + "&x=seed&logx=1")
    assert page.count("<circle") == 6
    assert "6 of these rows are not drawn: they have not a number above 0 for both axes" in page


def test_another_study_has_axes_of_its_own(folder, tmp_path):
    choose = """
        const box = document.querySelector("#study");
        box.value = "width/rows.jsonl";
        box.dispatchEvent(new Event("input"));
    """
    page = shown(page_of(folder), tmp_path, choose, "#study=other.rows.jsonl&x=value&filter=a")
    assert "6 of 12 rows" in page
    assert re.search(r'<select id="x">.*?<option selected="">base_lr<', page)


def test_a_click_on_a_column_sorts_and_another_turns_it_round(folder, tmp_path):
    click = "document.querySelectorAll('th').forEach((h) => h.textContent.startsWith('value') && h.click());"
    address = WIDTH + "metric%3Deval_loss+seed%3D0"
    up = shown(page_of(folder), tmp_path, click, address)
    down = shown(page_of(folder), tmp_path, click * 2, address)
    assert models(up) == ["w128", "w64", "w32"]
    assert models(down) == models(up)[::-1]


def test_columns_that_are_empty_in_all_rows_shown_are_left_out(tmp_path):
    measured = dataclasses.replace(ROW, model="a", metric="score", value=0.5, low=0.4)
    Results(tmp_path / "rows.jsonl").add([measured, dataclasses.replace(measured, model="b", low=None)])
    for model, there in (("a", True), ("b", False)):
        page = shown(page_of(tmp_path), tmp_path, address=f"#filter=model%3D{model}")
        assert (">low</th>" in page) is there


def test_a_point_tells_its_run(folder, tmp_path):
    hover = "document.querySelector('circle').dispatchEvent(new MouseEvent('mousemove'));"
    page = shown(page_of(folder), tmp_path, hover, WIDTH)
    tip = re.search(r'<div id="tip"[^>]*>(.*?)</div>', page, re.DOTALL)[1]
    assert "embed 32" in tip
    assert "config 000000000020 · 1 x cpu · jax-0.10.2" in tip


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
        "more/new.rows.jsonl, it has no rows yet",
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


def test_a_table_of_other_people_is_a_study(tmp_path):
    file = tmp_path / "theirs.csv"
    file.write_text("Model Size,loss,note\n1e6,3.0,a\n2e6,,a\n4e6,2.0,a\n8e6,1.5,a\n")
    done = call(
        [*command("report"), str(file), "--column=N=`Model Size`/1e6", "--where=N<8", f"--output={tmp_path}/p.html"]
    )
    assert (done.returncode, done.stderr) == (0, "note: --where=N<8 keeps 3 of 4 rows\n")
    (data,) = json.loads(re.search(r"STUDIES = (.*?);?$", (tmp_path / "p.html").read_text(), re.MULTILINE)[1])
    assert (data["columns"], data["constant"]) == (["Model Size", "loss", "N"], {"note": "a"})
    assert data["values"] == [[1e6, 3.0, 1.0], [2e6, None, 2.0], [4e6, 2.0, 4.0]]
    page = shown((tmp_path / "p.html").read_text(), tmp_path, address="#x=N&y=loss")
    assert page.count("<circle") == 2
