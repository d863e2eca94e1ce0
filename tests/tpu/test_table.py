"""The table of configs on slices: what is finished is kept, and what the page says is of the rows."""

import json
import shutil

import pytest

from scaling.core.errors import UserError
from scaling.parallel.mesh import check_batch, mesh_shape
from tests.commands import ROOT
from tests.tpu.examples import ROW
from tpu.compiler import preflight_rows, table
from tpu.compiler.topology import parse


def row_of(name, c, place, **fields):
    """The row of a cell, which a stand-in for the compiler returns."""
    mesh = dict(zip(("replica", "fsdp", "tensor"), mesh_shape(c.mesh, len(place.devices)), strict=True))
    about = {"config": name, "topology": place.name, "mesh": mesh, "wrap": list(place.wrap), "remat": c.model.remat}
    return ROW | about | fields


@pytest.mark.usefixtures("compiler")
def test_finished_cells_of_the_table_are_never_compiled_twice(tmp_path, monkeypatch):
    compiled = []

    def stand_in(name, c, place):
        compiled.append((name, place.name))
        failure = {"fits": False, "why": f"{name}: 4096 is too odd"}
        return row_of(name, c, place, **(failure if place.name == "v5e:2x2" else {}))

    monkeypatch.setattr(table, "preflight", stand_in)
    (tmp_path / "notes.md").write_text("## What it means\n")
    cells = [
        table.Cell("vit_b", "v5e:8x8"),
        table.Cell("vit_b", "v5e:8x8", "full"),
        table.Cell("vit_b", "v5e:2x2", "full"),
    ]
    for wanted in (cells[:1], cells, cells):
        rows = table.fill(tmp_path, wanted, 0.4, None)
    assert compiled == [("vit_b", "v5e:8x8"), ("vit_b", "v5e:8x8"), ("vit_b", "v5e:2x2")]
    assert [(row["remat"], row["fits"]) for row in rows] == [("none", True), ("full", True), ("full", False)]
    stored = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [preflight_rows.scheduled(row, 0.4, None) for row in stored] == rows
    page = (tmp_path / "README.md").read_text()
    assert "| vit_b | v5e:8x8 | 4 x 16 x 1 | full | yes | 3.0 of 16.0 GiB | 66% |" in page
    assert "| vit_b | v5e:8x8 | 4 x 16 x 1 | none | yes |" in page
    assert "- vit_b: 4096 is too odd" in page
    assert page.endswith("\n\n## What it means\n")


@pytest.mark.usefixtures("compiler")
def test_rows_of_an_earlier_program_are_marked_and_compiled_again(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "preflight", row_of)
    cells = tmp_path, table.chosen(["vit_b"], ["v5e:8x8", "v5e:16x16"]), 0.4, None
    with monkeypatch.context() as earlier:
        earlier.setattr(table, "PROGRAM", table.PROGRAM - 1)
        table.fill(*cells)
    table.fill(tmp_path, table.chosen(["vit_b"], ["v5e:8x8"]), 0.4, None)
    page = (tmp_path / "README.md").read_text()
    assert "| vit_b | v5e:8x8 |" in page
    assert "| vit_b* | v5e:16x16 |" in page
    assert "\\* Compiled from an earlier version" in page
    table.fill(*cells)
    assert "*" not in (tmp_path / "README.md").read_text()
    monkeypatch.setattr(table, "preflight", lambda *cell: {k: x for k, x in row_of(*cell).items() if k != "wrap"})
    monkeypatch.setattr(table, "PROGRAM", table.PROGRAM + 1)  # compiled as an open mesh where the machine has rings
    table.fill(*cells)
    page = (tmp_path / "README.md").read_text()
    assert "| vit_b | v5e:8x8 |" in page
    assert "| vit_b* | v5e:16x16 |" in page


@pytest.mark.usefixtures("compiler")
def test_rows_whose_gathers_were_taken_for_ones_over_all_chips_are_marked_and_compiled_again(tmp_path, monkeypatch):
    def earlier(*cell):
        return {field: value for field, value in row_of(*cell).items() if field != "reading"}

    cells = tmp_path, table.chosen(["vit_b", "vit_22b"], ["v4:4x4x8"]), 0.4, None
    monkeypatch.setattr(table, "preflight", earlier)
    table.fill(*cells)
    page = (tmp_path / "README.md").read_text()
    assert "| vit_b† | v4:4x4x8 | 8 x 16 x 1 |" in page
    assert "| vit_22b | v4:4x4x8 | 1 x 128 x 1 |" in page  # without replicas they are over all
    assert "the MFU bound too high" in page
    monkeypatch.setattr(table, "preflight", row_of)
    table.fill(*cells)
    assert "†" not in (tmp_path / "README.md").read_text()
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 3


@pytest.mark.usefixtures("compiler")
def test_a_search_for_the_fastest_goes_on_from_what_it_has_compiled(tmp_path, monkeypatch):
    compiled, limit = [], [1]

    def stand_in(name, c, place):
        if len(compiled) == limit[0]:
            raise KeyboardInterrupt
        mesh = mesh_shape(c.mesh, len(place.devices))
        compiled.append((c.model.remat, *mesh))
        seconds = {"hbm": 0.0, "ici": 0.5 if mesh[1] > 1 else 0.1}
        return row_of(name, c, place, binding="ici", mfu_bound=0.3, seconds=seconds)

    monkeypatch.setattr(table, "preflight", stand_in)
    search = tmp_path, ["vit_b"], ["v6e:2x4"], 0.4, None
    with pytest.raises(KeyboardInterrupt):
        table.fill_fastest(*search)
    limit[0] = 99
    own, best = table.fill_fastest(*search)
    assert len(compiled) == len(set(compiled)) > 3
    assert compiled[:3] == [(policy, 1, 8, 1) for policy in ("none", "dots", "full")]
    assert (own["mesh"]["fsdp"], best["mesh"]["fsdp"]) == (8, 1)
    assert table.fill_fastest(*search) == [own, best]
    assert len(compiled) == len(set(compiled))
    page = (tmp_path / "README.md").read_text()
    assert "| vit_b | v6e:2x4 | own mesh | 1 x 8 x 1 | none |" in page
    assert "| vit_b | v6e:2x4 | any mesh | 8 x 1 x 1 | none |" in page
    (row,) = map(json.loads, (tmp_path / "fastest.jsonl").read_text().splitlines())
    assert len(row["compiled"]) == len(compiled)
    for name in ("variants.jsonl", "fastest.jsonl"):  # as an earlier version read them
        read = (tmp_path / name).read_text()
        (tmp_path / name).write_text(read.replace('"reading": 2', '"reading": 1'))
    table.fill(tmp_path, [], 0.4, None)
    assert "| vit_b† | v6e:2x4 | any mesh | 8 x 1 x 1 | none |" in (tmp_path / "README.md").read_text()
    before = len(compiled)
    assert table.fill_fastest(*search)[1] == best
    assert len(compiled) > before
    assert "†" not in (tmp_path / "README.md").read_text()


@pytest.mark.usefixtures("compiler")
def test_a_line_of_the_table_that_a_kill_tore_is_compiled_again(tmp_path, monkeypatch):
    compiled = []

    def stand_in(name, c, place):
        compiled.append(place.name)
        return row_of(name, c, place)

    monkeypatch.setattr(table, "preflight", stand_in)
    places, file = ["v5e:8x8", "v5e:16x16"], tmp_path / "rows.jsonl"
    cells = tmp_path, table.chosen(["vit_b"], places), 0.4, None
    table.fill(*cells)
    whole = file.read_text()
    file.write_text(whole[:-30])
    table.fill(*cells)
    assert compiled == [*places, "v5e:16x16"]
    assert file.read_text() == whole
    file.write_text(f"{whole}oh\n{whole}")
    with pytest.raises(UserError, match=r"rows.jsonl, line 3, is not a row of the table: Expecting value"):
        table.fill(*cells)


@pytest.mark.usefixtures("compiler")
def test_the_smallest_slices_are_searched_once_and_stand_on_the_page(tmp_path, monkeypatch):
    searched = []

    def stand_in(c, kind, attempt):
        searched.append(kind)
        if kind == "v4":
            raise UserError("no slice of v4 is large enough")
        row = ROW | {"config": "vit_b", "topology": f"{kind}:2x2", "chips": 4}
        return [row | {"fits": False, "why": "too large"}, row | {"accumulate": 8}]

    monkeypatch.setattr(table, "smallest", stand_in)
    for kinds in (["v5e"], ["v5e", "v4"], ["v5e", "v4"]):
        rows = table.fill_smallest(tmp_path, ["vit_b"], kinds, 0.4, None)
    assert searched == ["v5e", "v4"]
    assert [(row["fits"], row.get("refused")) for row in rows] == [(True, ["too large"]), (False, None)]
    page = (tmp_path / "README.md").read_text()
    assert (
        "- vit_b: v5e:2x2, 4 chips with --config.accumulate=8, 3.0 of 16.0 GiB of HBM, MFU at most 66% (bottleneck: "
        "HBM traffic), 4 chip-hours at 40%\n" in page
    )
    assert "- vit_b: no slice of v4 is large enough\n" in page


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("where", sorted({cell.topology for cell in table.TABLE}))
def test_every_config_for_pods_has_a_mesh_and_a_batch_for_every_slice_of_the_table(where):
    names = {path.stem for path in (ROOT / "configs").glob("vit_*.py")}
    assert names > {cell.name for cell in table.TABLE}
    for name in names:
        c = table.load(f"{name}.py")
        check_batch(c.batch_size, mesh_shape(c.mesh, len(parse(where).devices)), c.accumulate)


def test_the_table_is_asked_for_by_config_and_by_slice():
    assert sorted(table.chosen([], [])) == sorted(table.TABLE)
    assert table.chosen(["vit_ti"], []) == [table.Cell("vit_ti", where) for where in table.PODS]
    assert [cell.remat for cell in table.chosen(["vit_l"], []) if cell.topology == "v5e:8x8"] == [
        "none",
        "dots",
        "full",
    ]
    slices = {cell.topology for cell in table.chosen(["vit_6b"], [])}
    assert slices == {*table.PODS, "v5p:4x4x8_untwisted"}
    assert len(table.chosen([], ["v5e:8x8"])) == len({cell.name for cell in table.TABLE})


def test_the_page_that_is_kept_is_of_the_rows_beside_it(tmp_path):
    folder = ROOT / "results" / "preflight"
    shutil.copytree(folder, tmp_path / "table")
    table.fill(tmp_path / "table", [], 0.4, None)
    assert (tmp_path / "table" / "README.md").read_text() == (folder / "README.md").read_text()
    assert {(row["config"], row["topology"]) for row in map(json.loads, (folder / "rows.jsonl").open())} <= {
        (cell.name, cell.topology) for cell in table.TABLE
    }
