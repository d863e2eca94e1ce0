"""Text: rows of measurements and of training, config files, tables, DOTA's labels and detections, XML."""

import contextlib
import io
import json
import os
from pathlib import Path

from etils import epath

from scaling import cli
from scaling.analysis.frames.reading import read_frame
from scaling.core.errors import UserError
from scaling.core.rows import read_rows
from scaling.data.dota_text import parse_detections, parse_objects
from scaling.data.sources.dior import parse_dior
from scaling.data.sources.tables import text_of_table
from scaling.training.writers import read_metrics
from tests.drills.hostile.formats import Format, as_text
from tests.rows import ROW

ROOT = Path(__file__).resolve().parents[3]


def _rows() -> list[bytes]:
    import dataclasses

    lines = [json.dumps(dataclasses.asdict(dataclasses.replace(ROW, seed=seed))) for seed in range(3)]
    metrics = [json.dumps({"step": i, "loss": 1.5 / i, "lr": 1e-3}) for i in range(1, 6)]
    return [("\n".join(lines) + "\n").encode(), ("\n".join(metrics) + "\n").encode()]


def _crafted_rows() -> list[bytes]:
    nested = b"[" * 100_000
    return [
        nested,
        nested + b"\n",
        b'{"a":' * 100_000 + b"\n",
        b'{"step": ' + b"9" * 5000 + b"}\n",
        b"\0" * 1000,
        b"{}\n" * 3,
    ]


def _read_rows(path: Path) -> None:
    read_metrics(epath.Path(path))
    refused = []
    for read in (read_rows, lambda p: read_frame(epath.Path(p))):
        try:
            read(path)
        except UserError as error:
            refused.append(error)
    if len(refused) == 2:
        raise refused[0]


def _configs() -> list[bytes]:
    return [(ROOT / "configs" / name).read_bytes() for name in ("quickstart.py", "vit_b.py")]


def _crafted_configs() -> list[bytes]:
    texts = (
        "def get_config(:\n",
        "raise KeyError('x')\n",
        "def get_config(): return 3\n",
        "get_config = 3\n",
        "1/0\n",
        "\0",
        "",
    )
    return [text.encode() for text in texts] + [
        b"x = " + b"(" * 300,
        b"\xff\xfe",
        b"def get_config():\n  raise OSError(5)\n",
    ]


def _read_config(path: Path) -> None:
    """Through the command line: what a config file raises is named there, with its line."""
    out, err, before = io.StringIO(), io.StringIO(), os.getcwd()
    os.chdir(path.parent)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.call("scaling.train", [f"--config={path}", "--print_config"])
    finally:
        os.chdir(before)
    if code:
        *_, last = err.getvalue().splitlines() or ["nothing"]
        if not last.startswith("error: ") or "Traceback" in err.getvalue():
            raise RuntimeError(f"code {code} with {last}")
        raise UserError(last.removeprefix("error: "))


_LABELS = "imagesource:GoogleEarth\ngsd:0.12\n" + "2.0 2.0 9.5 2.0 9.5 9.0 2.0 9.0 plane 0\n" * 3
_FOUND = "P0001 0.93 2.0 2.0 9.5 2.0 9.5 9.0 2.0 9.0\n" * 3


def _read_dota(path: Path) -> None:
    text, refused = text_of_table(path.read_bytes()), []
    for parse in (parse_objects, parse_detections):
        try:
            parse(text, path.name)
        except UserError as error:
            refused.append(error)
    if len(refused) == 2:
        raise refused[0]


def _described() -> list[bytes]:
    corners = "".join(
        f"<x_{where}>{x}</x_{where}><y_{where}>{y}</y_{where}>"
        for where, x, y in (("left_top", 1, 2), ("right_top", 9, 2), ("right_bottom", 9, 8), ("left_bottom", 1, 8))
    )
    one = f"<object><name>ship</name><difficult>0</difficult><robndbox>{corners}</robndbox></object>"
    return [
        f"<annotation>{one * 2}</annotation>".encode(),
        f'<?xml version="1.0" encoding="utf-8"?>\n<a>{one}</a>'.encode(),
    ]


def _crafted_xml() -> list[bytes]:
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
    bomb = f'<!DOCTYPE a [<!ENTITY l0 "ha">{laughs}]><a>&l11;</a>'
    blowup = f'<!DOCTYPE a [<!ENTITY q "{"x" * 100_000}">]><a>{"&q;" * 100_000}</a>'
    outside = '<!DOCTYPE a [<!ENTITY s SYSTEM "file:///etc/passwd">]><a><object><name>&s;</name></object></a>'
    remote = '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd"><a/>'
    parameter = '<!DOCTYPE a [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]><a/>'
    deep = "<a>" * 200_000 + "</a>" * 200_000
    coded = '<?xml version="1.0" encoding="utf-7"?><a/>', '<?xml version="1.0" encoding="nonsense"?><a/>'
    wide = "<a " + " ".join(f'x{i}="1"' for i in range(100_000)) + "/>"
    include = '<a xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="file:///etc/passwd" parse="text"/></a>'
    return [x.encode() for x in (bomb, blowup, outside, remote, parameter, deep, *coded, wide, include)]


def _read_xml(path: Path) -> None:
    parse_dior(text_of_table(path.read_bytes()), path.name)


FORMATS = (
    Format("rows", "JSON Lines: rows, metrics, tables", _rows, _read_rows, _crafted_rows, as_text, ".jsonl"),
    Format("config", "config files, which are programs", _configs, _read_config, _crafted_configs, as_text, ".py"),
    Format(
        "dota_text", "DOTA's labels and detections", lambda: [_LABELS.encode(), _FOUND.encode()], _read_dota,
        lambda: [b"9" * 400 + b" 1 2 3 4 5 6 7 ship 0\n", b"1 2 3 4 5 6 7 8 ship " + b"9" * 5000, b"\0" * 100],
        as_text, ".txt",
    ),
    Format("xml", "DIOR-R's descriptions", _described, _read_xml, _crafted_xml, as_text, ".xml"),
)  # fmt: skip
