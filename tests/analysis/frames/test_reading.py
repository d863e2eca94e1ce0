"""Files of other people as frames, and which are refused."""

import json

import polars as pl
import pytest
from etils import epath

from scaling.analysis.frames.reading import ORIGIN, is_own, read_frame, together
from scaling.core.errors import UserError
from tests.rows import ROW

DATA = {"Model Size": [10**18, 2 * 10**18], "val/loss": [0.5, None], "name": ["a", "b"]}


def written(folder, kind):
    file = folder / f"runs.{kind}"
    data = pl.DataFrame(DATA)
    {
        "csv": data.write_csv,
        "tsv": lambda to: data.write_csv(to, separator="\t"),
        "parquet": data.write_parquet,
        "jsonl": data.write_ndjson,
    }[kind](file)
    return epath.Path(file)


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl"])
def test_every_kind_of_table_is_the_same_frame(tmp_path, kind):
    frame = read_frame(written(tmp_path, kind))
    assert frame.columns == list(DATA)
    assert frame.data["Model Size"].to_list() == [1e18, 2e18]  # of floats: 6 N D would not fit into whole numbers
    assert frame.data["val/loss"].to_list() == [0.5, None]
    assert frame.data[ORIGIN].to_list() == [f"runs.{kind}, row 1", f"runs.{kind}, row 2"]


def test_a_file_of_own_rows_is_told_from_a_table(tmp_path):
    own, table, empty = (epath.Path(tmp_path / name) for name in ("own.jsonl", "table.jsonl", "empty.jsonl"))
    own.write_text("\n" + json.dumps(vars(ROW)) + "\n")
    table.write_text('{"loss": 1.0, "N": 3}\n')
    empty.write_text("")
    assert [is_own(file) for file in (own, table, empty, epath.Path(tmp_path / "a.csv"))] == [
        True,
        False,
        True,
        False,
    ]


WRONG = {
    "a.csv": ("N,N\n1,2\n", "column N occurs twice"),
    "b.csv": ("N,loss\n", "it has no rows"),
    "c.csv": ("N,loss\n1,2,3\n", "cannot be read as csv"),
    "c2.csv": ("N;loss\n1000;2,5\n", "the separator of its columns is semicolons, not ','; write it with commas"),
    "c3.csv": ("N\tloss\n1000\t2,5\n", "separator of its columns is tabs, not ','; name it .tsv"),
    "c4.csv": (b"N,name\n1,caf\xe9\n", "not UTF-8 .byte 0xe9 in line 2., maybe Latin-1; convert it: iconv"),
    "d.xlsx": ("PK", "tables are read from .csv, .tsv, .parquet"),
    "e.parquet": ("PAR", "cannot be read as parquet"),
    "f.jsonl": ('{"N": 1}\n{"N"\n', "cannot be read as jsonl"),
    "g.json": ('{"N": 1}', "a table is JSON Lines"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_table_is_refused_in_one_line(tmp_path, name):
    content, said = WRONG[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=said) as refused:
        read_frame(epath.Path(tmp_path / name))
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="there is no such file"):
        read_frame(epath.Path(tmp_path / "none.csv"))


def test_a_curve_of_tensorboard_gets_run_and_tag_of_its_name(tmp_path):
    for ending, content in (("csv", "Wall time,Step,Value\n1.5,10,0.25\n"), ("json", "[[1.5, 10, 0.25]]")):
        file = epath.Path(tmp_path / f"run-vit_b_seed0-tag-eval_loss.{ending}")
        file.write_text(content)
        row = read_frame(file).data.row(0, named=True)
        assert (row["Step"], row["Value"], row["run"], row["tag"]) == (10.0, 0.25, "vit_b_seed0", "eval_loss")


def test_a_panel_of_wandb_is_one_row_a_run_and_step(tmp_path):
    file = epath.Path(tmp_path / "panel.csv")
    names = [f"{run} - val/loss{end}" for run in ("a - b", "c") for end in ("", "__MIN", "__MAX")]
    file.write_text("Step," + ",".join(f'"{name}"' for name in names) + "\n10,.5,.4,.6,.7,.7,.7\n20,,,,.3,.3,.3\n")
    frame = read_frame(file)
    rows = frame.data.select("Step", "run", "val/loss").rows()
    assert sorted(rows) == [(10.0, "a - b", 0.5), (10.0, "c", 0.7), (20.0, "c", 0.3)]
    assert frame.notes == (
        "panel.csv: a panel of 2 runs, read as one row a run and Step; its __MIN and __MAX are not used",
    )


def test_events_of_tensorboard_are_a_row_a_step(tmp_path):
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(tmp_path / "run"))
    for step, loss in ((5, 0.5), (10, 0.25)):
        writer.add_scalar("eval/loss", loss, step)
    writer.add_scalar("lr", 1.0, 5)
    writer.close()
    (file,) = (tmp_path / "run").iterdir()
    file.write_bytes(file.read_bytes() + b"torn")
    data = read_frame(epath.Path(file)).data
    assert data.select("step", "eval/loss", "lr", "run").rows() == [(5.0, 0.5, 1.0, "run"), (10.0, 0.25, None, "run")]


def test_tables_below_each_other_keep_all_columns(tmp_path):
    frames = []
    for name, content in (("a.csv", "N,loss\n1,2\n"), ("b.csv", "N,acc\n3,4\n")):
        (tmp_path / name).write_text(content)
        frames.append(read_frame(epath.Path(tmp_path / name)))
    assert together(frames).data.select("N", "loss", "acc").rows() == [(1.0, 2.0, None), (3.0, None, 4.0)]
    (tmp_path / "c.csv").write_text("N\nbig\n")
    with pytest.raises(UserError, match="the tables do not fit together"):
        together([frames[0], read_frame(epath.Path(tmp_path / "c.csv"))])
