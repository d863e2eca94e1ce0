"""Reports, searches and tables of preflight; a stand-in replaces compilation wherever that is not being tested."""

import dataclasses
import functools
import json
import shutil
import sys

import pytest

import tpu.preflight
from scaling.core.errors import UserError
from scaling.models.config import ViTConfig
from scaling.parallel.mesh import MeshConfig, check_batch, mesh_shape
from scaling.training.config import TrainConfig
from tests.commands import ROOT, call, error_of
from tpu.compiler import preflight_rows, table
from tpu.compiler.fit import fastest, overrides, smallest
from tpu.compiler.floor import Known, floor
from tpu.compiler.roofline import recomputed_flops, roofline
from tpu.compiler.step import compiler_options, fsdp_bytes, state_bytes, train_step_for
from tpu.compiler.topology import parse
from tpu.flags import CHIPS

ROW = {
    "config": "vit_x", "topology": "v5e:16x16", "chips": 256, "mesh": {"replica": 1, "fsdp": 256, "tensor": 1},
    "batch_size": 4096, "accumulate": 1, "remat": "full", "steps": 1000, "fits": True, "hbm_per_chip_bytes": 3 * 2**30,
    "hbm_arguments_bytes": 2**30, "hbm_temporaries_bytes": 2**31, "hbm_limit_bytes": 2**34, "compile_seconds": 60.0,
    "flops_per_step": 10**15, "executed_flops_per_step": 13 * 10**14,
    "collectives": {"all-gather": {"count": 24, "bytes": 10**10}}, "collective_bytes": 10**10, "fsdp_bytes": 10**10,
    "overlapped_share": 0.75, "hbm_traffic_bytes": 2 * 10**10, "seconds": {"compute": 0.02, "hbm": 0.03, "ici": 0.01},
    "mfu_bound": 0.66, "binding": "hbm", "cores": 2, "reading": 2,
}  # fmt: skip


def preflight(*arguments, how=call):
    return how([sys.executable, "-m", "tpu.preflight", *arguments])


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=vit_b.py"], "give --config=FILE and --topology=CHIP:SHAPE or --smallest=CHIP, or --table=FOLDER"),
        (["--config=vit_b.py", "--smallest=v5"], "--smallest=v5: the chips are v4, v5e, v5p, v6e, tpu7x"),
        (["--config=vit_b.py", "--smallest=v5e", "--fit"], "--smallest: chooses the slice itself; leave out"),
        (["--config=vit_b.py", "v5e:2x2"], "v5e:2x2: is not a flag"),
        (["--config=vit_b.py", "--topology=v5e:2x2", "--price=-1"], "--price=-1: "),
        (["--config=vit_b.py", "--topology=v5e:2x2", "--price=inf"], "--price=inf: must be a finite number"),
        (["--config=vit_b.py", "--topology=v5e:2x2", "--mfu=0"], "--mfu=0.0: must be above 0"),
        (["--table=x", "--topologies=v5e:8x8", "--json=y"], "leave out --config, --topology and --json"),
        (["--table=x", "--configs=vit_b", "--fit"], "--table with --fit: searches take hours; name the --configs and"),
        (["--table=x", "--configs=vit_b,vit_hh"], "no config file 'vit_hh.py'"),
        (["--config=vit_b.py", "--topology=v5e:16x16", "--config.batch_size=100"], "the nearest that is: 256"),
        (["--config=segment_g12x4.py", "--topology=v5e:16x16"], "needs an encoder; give one, as --model=vit_g12x4"),
        (
            ["--config=vit_b.py", "--model=vit_b", "--topology=v5e:16x16"],
            "--model=vit_b: only for a fine-tuning recipe",
        ),
        (["--config=segment_g12x4.py", "--model=vit_g12", "--topology=v5e:16x16"], "unknown model 'vit_g12'"),
        (
            ["--config=segment_g12x4.py", "--model=vit_g12x4", "--topology=v5e:16x16", "--config.image_size=500"],
            "image_size=500 is not divisible by model.patch_size=16",
        ),
    ],
    ids=[
        "no slice",
        "chip",
        "two searches",
        "no flag",
        "a price below nothing",
        "a price without end",
        "no MFU",
        "two tasks",
        "a search of everything",
        "a config of many",
        "batch",
        "a recipe of no encoder",
        "an encoder twice",
        "no such encoder",
        "an image of no patches",
    ],
)
def test_wrong_input_is_one_line_before_anything_is_compiled(arguments, message):
    assert message in error_of(preflight(*arguments), 2)


@pytest.mark.usefixtures("compiler")
def test_the_step_is_that_of_training_on_the_slice():
    train_step = train_step_for(table.load("vit_g12x4.py"), parse("v5e:16x16"))
    assert dict(train_step.mesh.shape) == {"replica": 4, "fsdp": 64, "tensor": 1}
    assert train_step.config.dtype == "bfloat16"
    assert train_step.mesh.devices.flat[0].platform == "tpu"
    kernels = 2_445_200_000 * 2  # parameters of both networks in bfloat16; biases and norms are not split
    assert fsdp_bytes(train_step) == pytest.approx(3 * kernels * 63 / 64, rel=1e-3)


@pytest.mark.usefixtures("compiler")
def test_a_recipe_of_fine_tuning_is_compiled_with_its_encoder_and_head(monkeypatch, tmp_path):
    seen = {}

    def stand_in(name, c, place):
        seen["config"], seen["step"] = c, train_step_for(c, place)
        return ROW | {"config": name, "topology": place.name}

    monkeypatch.setattr(tpu.preflight, "preflight", stand_in)
    recipe = ["--config=segment_g12x4.py", "--model=vit_g12x4", "--topology=v5e:16x16"]
    done = preflight(*recipe, "--config.model.window=16", f"--json={tmp_path / 'row.json'}")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "row.json").read_text())["config"] == "segment_g12x4"
    c, train_step = seen["config"], seen["step"]
    assert (c.steps, c.optimizer.warmup, len(c.task.classes)) == (2500, 47, 8)
    assert (c.model.width, c.model.grid, c.model.global_blocks) == (2048, (32, 32), (3, 6, 9, 12))
    assert dict(train_step.mesh.shape) == {"replica": 4, "fsdp": 64, "tensor": 1}
    fusion = 3 * 2 * 9 * 4 * 512 * 512 * 128**2  # of one image, forward and backward
    assert 2 * fusion < train_step.flops_per_image() < 40 * fusion


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(("tensor", "accumulate", "times"), [(2, 1, 0.5), (1, 2, 2.0), (2, 2, 1.0)])
def test_a_tensor_axis_halves_what_fsdp_sends_and_microbatches_repeat_it(tensor, accumulate, times):
    c, place = table.load("vit_g12x4.py"), parse("v5e:16x16")
    other = dataclasses.replace(c, accumulate=accumulate, mesh=dataclasses.replace(c.mesh, tensor=tensor))
    sent = [fsdp_bytes(train_step_for(config, place)) for config in (c, other)]
    assert sent[1] / sent[0] == pytest.approx(times, rel=2e-3)  # the input and output of the decoder are not split


@pytest.mark.usefixtures("compiler")
def test_the_roofline_takes_the_longest_of_three_times():
    c, place = table.load("vit_b.py"), parse("v5e:16x16")
    train_step = train_step_for(c, place)
    fast, slow = (roofline(train_step, [], traffic, place) for traffic in (0, 819 * 10**9))
    assert (fast.binding, slow.binding, slow.hbm) == ("compute", "hbm", 1.0)
    assert fast.mfu_bound == pytest.approx(fast.flops / fast.executed)
    assert slow.mfu_bound == pytest.approx(slow.flops / place.peak)


@pytest.mark.usefixtures("compiler")
def test_full_remat_repeats_the_blocks_but_their_last_product_and_dots_the_attention_products():
    c, place = table.load("vit_b.py"), parse("v5e:16x16")
    none, dots, full = (
        train_step_for(dataclasses.replace(c, model=dataclasses.replace(c.model, remat=policy)), place)
        for policy in ("none", "dots", "full")
    )
    forward = roofline(none, [], 0, place).flops / c.batch_size / 3
    assert recomputed_flops(none) == 0
    encoder, decoder = 12 * 2 * 2 * 50**2 * 768, 8 * 2 * 2 * 197**2 * 512  # layers, products, 2, tokens^2, width
    assert recomputed_flops(dots) == encoder + decoder
    assert 0.6 * forward < recomputed_flops(full) < 0.7 * forward  # 8 of the 12 d^2, and attention


def test_the_flags_are_those_of_the_launcher():
    options = compiler_options(parse("v6e:16x16"))
    assert " ".join(f"--{name}={value}" for name, value in options.items()) == CHIPS["v6e"].init_args


def test_the_schedule_is_arithmetic():
    got = preflight_rows.scheduled(ROW, mfu=0.5, price=2.0)["schedule"]
    hours = 1000 * 1e15 / (0.5 * 256 * 197e12) / 3600
    assert got == pytest.approx(
        {"mfu": 0.5, "hours": hours, "chip_hours": 256 * hours, "price": 2.0, "cost": 512 * hours}
        | {"images_per_second": 1000 * ROW["batch_size"] / (3600 * hours)}
    )


def test_the_report_says_what_is_asked(capsys):
    preflight_rows.show(preflight_rows.scheduled(ROW, mfu=0.4, price=1.2))
    out = capsys.readouterr().out
    for words in (
        "vit_x fits on v5e:16x16: 256 chips, replica 1, fsdp 256, tensor 1, 4096 images a step, remat full",
        "3.00 GiB of HBM per chip: 1.00 parameters and optimizer, 2.00 temporaries; 13.00 of 16.00 stay free",
        "24 all-gather, 10.00 GB per chip and step (10.00 GB is what FSDP needs), 75% of it beside other work",
        "compute 20.0 ms, HBM traffic 30.0 ms, interconnect 10.0 ms (20.0 GB to and from HBM)",
        "MFU at most 66.0%; bottleneck: HBM traffic",
        "1,000 steps: 0.0 hours at 40% MFU, 4 chip-hours, 4 USD at 1.2 an hour",
        "1,291 images/s and 53 MB/s for each of 64 hosts, at 41 KB an image: more than a bucket gives at once (5,000",
    ):
        assert words in out


def test_one_chip_sends_nothing(capsys):
    row = ROW | {"topology": "v5e:1x1", "chips": 1, "collectives": {}, "collective_bytes": 0, "fsdp_bytes": 0}
    preflight_rows.show(preflight_rows.scheduled(row, mfu=0.4, price=None))
    out = capsys.readouterr().out
    assert "vit_x fits on v5e:1x1: 1 chip, " in out
    assert "sent     nothing\n" in out


def test_no_schedule_is_faster_than_its_bound():
    assert preflight_rows.scheduled(ROW | {"mfu_bound": 0.3}, mfu=0.4, price=None)["schedule"]["mfu"] == 0.3


@pytest.mark.usefixtures("compiler")
def test_what_cannot_run_is_a_row_with_a_reason_and_with_what_the_axes_tell():
    c = table.load("vit_b.py")
    row = preflight_rows.preflight("vit_b", dataclasses.replace(c, batch_size=100), parse("v5e:16x16"))
    assert not row["fits"]
    assert row["why"].startswith("vit_b on v5e:16x16: batch_size=100 is not divisible")
    promised = "config topology chips fits hbm_per_chip_bytes hbm_limit_bytes compile_seconds flops_per_step"
    assert set(f"{promised} collective_bytes mfu_bound binding".split()) <= set(row)
    assert preflight_rows.cells(row)[:6] == ["vit_b", "v5e:16x16", "", "none", "no", ""]


def attempts(holds, hbm=(0, 0, 0)):
    """A stand-in for the compiler: memory falls with accumulation and remat, and microbatches cost time.

    holds: memory as shares of the HBM of four chips, with remat none, dots and full; a quarter of it is needed by every
    microbatch.
    hbm: time of the traffic to HBM with each, relative to the least that a step may take.
    """
    policies = ("none", "dots", "full")
    held, moved = (dict(zip(policies, each, strict=True)) for each in (holds, hbm))
    tried = []

    def attempt(c, place):
        tried.append((c.model.remat, c.accumulate, place.name))
        whole = held[c.model.remat] * place.hbm_limit * 4 / place.chips
        row = {"accumulate": c.accumulate, "topology": place.name, "hbm_limit_bytes": place.hbm_limit}
        row["hbm_per_chip_bytes"] = int(whole * (1 / 4 + 3 / 4 / c.accumulate))
        row["fits"] = row["hbm_per_chip_bytes"] <= place.hbm_limit
        least = floor(train_step_for(dataclasses.replace(c, accumulate=1), place), place)
        seconds = {"compute": least * (5 + c.accumulate) / 6, "hbm": least * moved[c.model.remat]}
        return row | ({"seconds": seconds, "binding": "compute"} if row["fits"] else {})

    return attempt, tried


BATCH_OF_64 = TrainConfig(batch_size=64)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    ("holds", "hbm", "flags", "count"),
    [
        ((1, 0.5, 0.2), (0, 0, 0), "--config.model.remat=none --config.accumulate=1", 1),
        ((1, 0.5, 0.2), (1.9, 1.3, 2.0), "--config.model.remat=dots --config.accumulate=1", 3),  # it moves less
        ((1.5, 0.9, 0.2), (0, 0, 0), "--config.model.remat=dots --config.accumulate=1", 3),  # and none with 2
        ((3, 1.5, 0.9), (0, 0, 0), "--config.model.remat=dots --config.accumulate=2", 5),
    ],
)
def test_the_fastest_that_fits_is_found(holds, hbm, flags, count):
    attempt, tried = attempts(holds, hbm)
    best, rows = fastest(BATCH_OF_64, parse("v5e:2x2"), attempt)
    assert overrides(best) == flags
    assert len(rows) == len(set(tried)) == count


@pytest.mark.usefixtures("compiler")
def test_where_links_bind_the_fastest_mesh_is_found_without_compiling_most():
    """A stand-in, whose programs take twice the least time on the config's own mesh, and 1.2 times on any other."""
    model = ViTConfig(width=512, depth=3, heads=4, head_dim=128, mlp=2048, image_size=64)
    c, place, tried = TrainConfig(batch_size=256, model=model), parse("v6e:4x4"), []

    @functools.cache
    def seconds(shape):
        train_step = train_step_for(dataclasses.replace(c, mesh=MeshConfig(*shape)), place)
        state = 2 * state_bytes(train_step) / place.chip.hbm_bandwidth
        return {"ici": floor(train_step, place) * (2 if shape == (1, 16, 1) else 1.2), "hbm": state}

    def attempt(c, place):
        shape = mesh_shape(c.mesh, 16)
        tried.append((c.model.remat, shape))
        return {"fits": True, "accumulate": 1, "seconds": seconds(shape), "hbm_per_chip_bytes": 1, "binding": "ici"}

    best, rows = fastest(c, place, attempt)
    sizes = 1, 2, 4, 8, 16
    times = {
        (r, n, t): max(seconds((r, n, t)).values()) for r in sizes for n in sizes for t in sizes[:3] if r * n * t == 16
    }
    found = mesh_shape(best.mesh, 16)
    assert times[found] <= min(times.values()) / 0.95 < times[1, 16, 1]
    assert len(rows) == len(set(tried)) < len(times)
    assert "--config.mesh.replica=" in overrides(best)
    assert fastest(c, place, attempt, other_meshes=False)[0].mesh == c.mesh


@pytest.mark.usefixtures("compiler")
def test_nothing_is_faster_than_the_least_that_must_be_done():
    c, place = table.load("vit_b.py"), parse("v6e:16x16")
    whole, dots = (train_step_for(table.Cell("vit_b", place.name, policy).config, place) for policy in ("none", "dots"))
    mesh = dataclasses.replace(c.mesh, replica=4, fsdp=32, tensor=2)
    split = train_step_for(dataclasses.replace(c, mesh=mesh), place)
    links = {"fsdp": (fsdp_bytes(whole), 200e9), "replicas": (2 * 15 / 16 * 2 * 111.6e6 / 16, 200e9)}
    assert floor(whole, place) == pytest.approx(sum(sent / rate for sent, rate in links.values()), rel=0.01)
    # 32 images, 4 sums of bfloat16 over two chips in each block of the encoder and of the decoder, on one link
    sums = 32 * 4 * 2 * (12 * 50 * 768 + 8 * 197 * 512) / 100e9
    assert floor(split, place) == pytest.approx(fsdp_bytes(split) / 300e9 + sums, rel=0.02)
    known = Known(seconds=0.02, state=0.001, tensor=1)
    assert floor(dots, place, known) == pytest.approx(0.019, rel=0.01)
    assert floor(split, place, known) == pytest.approx(0.0095, rel=0.01)


@pytest.mark.usefixtures("compiler")
def test_microbatches_that_cannot_be_small_enough_are_not_compiled():
    attempt, tried = attempts((9, 9, 3))
    best, _ = fastest(BATCH_OF_64, parse("v5e:2x2"), attempt)
    assert overrides(best) == "--config.model.remat=full --config.accumulate=16"
    assert tried == [(*variant, "v5e:2x2") for variant in [("none", 1), ("none", 16), ("dots", 1), ("dots", 16)]] + [
        ("full", n, "v5e:2x2") for n in (1, 4, 16)
    ]


@pytest.mark.usefixtures("compiler")
def test_a_model_that_never_fits_is_refused():
    with pytest.raises(UserError, match=r"nothing fits on v5e:2x2"):
        fastest(TrainConfig(batch_size=8), parse("v5e:2x2"), attempts((99, 99, 99))[0])


@pytest.mark.usefixtures("compiler")
def test_the_smallest_slice_is_found_without_compiling_where_the_state_alone_is_too_large():
    c = dataclasses.replace(table.load("vit_22b.py"), batch_size=512)
    attempt, _ = attempts((9, 9, 9))
    *refused, row = smallest(c, "v5e", attempt)
    assert (row["topology"], row["accumulate"], row["fits"]) == ("v5e:4x8", 2, True)
    # 22 billion parameters of 10 bytes: 13.6 GB over 16 chips, with sums of their gradients 19 GB
    assert [(x["topology"], x["accumulate"]) for x in refused] == [("v5e:4x4", 1), ("v5e:4x8", 1)]
    with pytest.raises(UserError, match=r"no slice of v5e that Cloud TPU offers is large enough$"):
        smallest(c, "v5e", attempts((999, 999, 999))[0])


@pytest.mark.usefixtures("compiler")
def test_slices_that_a_mesh_cannot_be_laid_over_are_passed_over():
    c = dataclasses.replace(table.load("vit_b.py"), mesh=MeshConfig(replica=-1, fsdp=64))
    (row,) = smallest(c, "v5e", attempts((9, 9, 9))[0])
    assert row["topology"] == "v5e:8x8"
    c = dataclasses.replace(c, mesh=MeshConfig(replica=-1, fsdp=3))
    with pytest.raises(UserError, match=r"no slice of v5e .* is large enough; v5e:16x16: .* must multiply to the 256"):
        smallest(c, "v5e", attempts((9, 9, 9))[0])


@pytest.mark.usefixtures("compiler")
def test_finished_cells_of_the_table_are_never_compiled_twice(tmp_path, monkeypatch):
    compiled = []

    def stand_in(name, c, place):
        compiled.append((name, place.name))
        if place.name == "v5e:2x2":
            return ROW | {"config": name, "topology": "v5e:2x2", "fits": False, "why": f"{name}: 4096 is too odd"}
        return ROW | {"config": name, "topology": place.name, "remat": c.model.remat}

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
    assert "| vit_b | v5e:8x8 | 1 x 256 x 1 | full | yes | 3.0 of 16.0 GiB | 66% |" in page
    assert "| vit_b | v5e:8x8 | 1 x 256 x 1 | none | yes |" in page
    assert "- vit_b: 4096 is too odd" in page
    assert page.endswith("\n\n## What it means\n")


@pytest.mark.usefixtures("compiler")
def test_rows_of_an_earlier_program_are_marked_and_compiled_again(tmp_path, monkeypatch):
    def compiled(name, c, place):
        return ROW | {"config": name, "topology": place.name, "wrap": list(place.wrap), "remat": c.model.remat}

    monkeypatch.setattr(table, "preflight", compiled)
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
    monkeypatch.setattr(table, "preflight", lambda *cell: {k: x for k, x in compiled(*cell).items() if k != "wrap"})
    monkeypatch.setattr(table, "PROGRAM", table.PROGRAM + 1)  # compiled as an open mesh where the machine has rings
    table.fill(*cells)
    page = (tmp_path / "README.md").read_text()
    assert "| vit_b | v5e:8x8 |" in page
    assert "| vit_b* | v5e:16x16 |" in page


@pytest.mark.usefixtures("compiler")
def test_rows_whose_gathers_were_taken_for_ones_over_all_chips_are_marked_and_compiled_again(tmp_path, monkeypatch):
    def compiled(name, c, place):
        mesh = dict(zip(("replica", "fsdp", "tensor"), mesh_shape(c.mesh, len(place.devices)), strict=True))
        cell = {"config": name, "topology": place.name, "mesh": mesh, "wrap": list(place.wrap)}
        return ROW | cell | {"remat": c.model.remat}

    def earlier(*cell):
        return {field: value for field, value in compiled(*cell).items() if field != "reading"}

    cells = tmp_path, table.chosen(["vit_b", "vit_22b"], ["v4:4x4x8"]), 0.4, None
    monkeypatch.setattr(table, "preflight", earlier)
    table.fill(*cells)
    page = (tmp_path / "README.md").read_text()
    assert "| vit_b† | v4:4x4x8 | 8 x 16 x 1 |" in page
    assert "| vit_22b | v4:4x4x8 | 1 x 128 x 1 |" in page  # without replicas they are over all
    assert "the MFU bound too high" in page
    monkeypatch.setattr(table, "preflight", compiled)
    table.fill(*cells)
    assert "†" not in (tmp_path / "README.md").read_text()
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 3


@pytest.mark.usefixtures("compiler")
def test_a_search_for_the_fastest_goes_on_from_what_it_has_compiled(tmp_path, monkeypatch):
    compiled, limit = [], [1]

    def stand_in(name, c, place):
        if len(compiled) == limit[0]:
            raise KeyboardInterrupt
        mesh = dict(zip(("replica", "fsdp", "tensor"), mesh_shape(c.mesh, len(place.devices)), strict=True))
        compiled.append((c.model.remat, *mesh.values()))
        bound = {"topology": place.name, "mesh": mesh, "remat": c.model.remat, "binding": "ici", "mfu_bound": 0.3}
        return ROW | bound | {"seconds": {"hbm": 0.0, "ici": 0.5 if mesh["fsdp"] > 1 else 0.1}}

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
        return ROW | {"config": name, "topology": place.name, "remat": c.model.remat}

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
