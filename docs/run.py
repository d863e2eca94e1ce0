"""Runs notebooks in place: every cell in order, in one process, with what it prints and draws kept below it.

    python docs/run.py docs/NAME.ipynb …

Needs no Jupyter. A cell that fails ends the run with its traceback, and leaves the file as it was.
"""

import ast
import base64
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]


def run(notebook: dict[str, Any]) -> None:
    """Runs the code cells and puts their outputs into them; raises what a cell raises."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for count, cell in enumerate((c for c in notebook["cells"] if c["cell_type"] == "code"), 1):
        cell["execution_count"], cell["outputs"] = count, _outputs("".join(cell["source"]), names, count)


def _outputs(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    body, last = ast.parse(source), None
    if body.body and isinstance(body.body[-1], ast.Expr):
        last = ast.Expression(body.body.pop().value)
    out, outputs, where = io.StringIO(), [], f"cell {count}"
    with contextlib.redirect_stdout(out):
        exec(compile(body, where, "exec"), names)
        value = eval(compile(last, where, "eval"), names) if last else None
    if text := out.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    for number in plt.get_fignums():
        picture = io.BytesIO()
        plt.figure(number).savefig(picture, format="png", dpi=80, bbox_inches="tight", metadata={"Software": None})
        data = {"image/png": base64.b64encode(picture.getvalue()).decode()}
        outputs.append({"output_type": "display_data", "metadata": {}, "data": data})
    if value is not None and not plt.get_fignums():
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        outputs.append({"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": data})
    plt.close("all")
    return outputs


def main(files: list[str]) -> None:
    """Runs each in a folder of its own, in which `results` is that of the checkout."""
    for file in map(Path, files):
        notebook = json.loads(file.read_text())
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            os.symlink(ROOT / "results", "results")
            run(notebook)
        file.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
        print(f"{file}: {sum(cell['cell_type'] == 'code' for cell in notebook['cells'])} cells")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1:])
