"""The notebooks run unchanged, and show the stored output."""

import contextlib
import json

import numpy as np
import pytest

from docs.run import run
from tests.commands import ROOT

NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))


def read(name):
    return json.loads((ROOT / "docs" / f"{name}.ipynb").read_text())


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_kept_as_it_ran(file):
    cells = code_cells(json.loads(file.read_text()))
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell["outputs"] for cell in cells)


def test_what_a_cell_prints_shows_and_raises():
    def cell(source):
        return {"cell_type": "code", "source": source.splitlines(keepends=True)}

    notebook = {"cells": [cell("x = 2\nprint(x)\nx + 1"), {"cell_type": "markdown", "source": []}, cell("x * 5")]}
    run(notebook)
    said = [[o.get("text") or o["data"]["text/plain"] for o in c["outputs"]] for c in code_cells(notebook)]
    assert said == [[["2\n"], ["3"]], [["10"]]]
    with pytest.raises(ZeroDivisionError):
        run({"cells": [cell("1 / 0")]})


@pytest.mark.long
@pytest.mark.parametrize("name", [file.stem for file in NOTEBOOKS])
def test_a_notebook_runs(name, tmp_path):
    (tmp_path / "results").symlink_to(ROOT / "results")
    notebook = read(name)
    with contextlib.chdir(tmp_path):
        run(notebook)
    text = json.dumps([cell["outputs"] for cell in code_cells(notebook)])
    assert "image/png" in text
    if name == "count_and_cut":
        assert "86,567,424 parameters" in text or "parameters in the encoder" in text
        lines = [line for line in "".join(_printed(notebook)).splitlines() if line.startswith("width ")]
        far = np.array([[float(part.split()[-1]) for part in line.split(":")[1].split(",")] for line in lines])
        assert (far[:, 1] < far[:, 0]).all()  # the repaired cut is nearer, at every width


def _printed(notebook):
    for cell in code_cells(notebook):
        for output in cell["outputs"]:
            yield from output.get("text", [])
