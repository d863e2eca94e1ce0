"""Values that `make bench-tpu-compiled` reads from compiled programs: counts, multiplicities and names."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scaling.models.classifier import abstract_classifier
from scaling.models.variants import encoder
from scaling.tasks.classification import Labelling
from tests.bench.tpu_compiled import bundles
from tests.bench.tpu_compiled.__main__ import MEASURES, REFUSED, compile_case, ratios, row, table
from tests.bench.tpu_compiled.cases import CLASSES, FIGURES
from tests.bench.tpu_compiled.cycles import GROUPS, clock, costs
from tests.bench.tpu_compiled.products import products
from tests.bench.tpu_compiled.yardstick import ViT, Yardstick
from tests.tpu.programs import LOOP
from tpu.compiler import hlo
from tpu.compiler.topology import parse
from tpu.compiler.traffic import hbm_bytes

# 3 bundles around; a loop of 7 turns with 9 of its own (some without a mark) and two loops inside: of 4 turns with 8
# bundles, and of an unknown number of turns with 6.
SCHEDULE = """= control target key start
LB: loop body
= control target key end

     0   :  { %s8 = smov 0  ;;  %s12 = smov 0 /* copy for cssa */ } /* entry bundle: %fusion.1 = fusion(%a) */
   0x1   :  { %s9 = smov 0 }
   0x2 LB: > { %s10 = sphi %s8, %s11 } /* Start region 4 */
   0x3 LB: >> { %v1 = vld [vmem:[%s9 + $0x8] sm:$0xff] }
   0x4   : >> { %p1 = scmp.ge.s32.totalorder %s10, 4 /* loop exit test */  ;;  %v2 = vadd.f32 %v1, %v1 }
   0x5   : >> { %3 = dma.general %s1
window_bounds: (143, 4)
 */ }
   0x6   :  { %4 = sbr.rel (!%p1) target = $region3 }
   0x7   :  {}
   0x8   :  {}
   0x9   : >> { %s4 = smov 0 }
   0xa   :  {}
   0xb   :  { %5 = sbr.rel (%p7) target = $region9 }
   0xc LB: >> { %p2 = scmp.ge.s32.totalorder %s10, %s12 /* loop exit test */ }
   0xd   : >> { %6 = sbr.rel (!%p2) target = $region3 }
   0xe   :  {}
   0xf   :  {}
  0x10   :  {}
  0x11   :  {}
  0x12 PF: > { %p31 = scmp.lt.s32.totalorder %s10, 9 }
  0x13   : > { %p3 = scmp.ge.s32.totalorder %s10, 7 /* loop exit test */ }
  0x14   :  { %7 = sbr.rel (!%p3) target = $region3 }
  0x15   :  {}
  0x16   :  {}
  0x17   :  {}
  0x18   :  {}
  0x19   :  {} /* exit bundle: %fusion.1 = fusion(%a) */
"""
PLACE = "v5e:1x1"


def test_bundles_count_as_often_as_the_loops_around_them_turn():
    assert bundles.count(SCHEDULE) == 3 + 7 * (9 + 4 * 8 + 6)


def test_a_schedule_without_loops_is_its_length():
    assert bundles.count("\n".join(SCHEDULE.replace("LB", "  ").replace("exit test", "").splitlines())) == 0x19 + 1


def test_schedules_go_by_the_instruction_and_nothing_else_is_read(tmp_path):
    for name in ("17-fusion.1-01-final_bundles.txt", "18-copy-start-2.3-01-final_bundles.txt"):
        (tmp_path / name).write_text(SCHEDULE)
    for name in ("17-fusion.1-00-schedule-analysis_final_bundles.txt", "1-TLP-hlo.txt", "1-TLP-02-vmem_report.html"):
        (tmp_path / name).write_text("x")
    assert set(bundles.read(tmp_path)) == {"fusion.1", "copy-start-2.3"}
    assert bundles.read(tmp_path / "nothing was written") == {}


def estimated(text, name, cycles):
    """A program in which the compiler has an estimate for one instruction."""
    lines = text.splitlines()
    i = next(i for i, line in enumerate(lines) if f"%{name} = " in line)
    lines[i] += f', backend_config={{"window_config":{{"estimated_cycles":"{cycles}"}}}}'
    return "\n".join(lines)


def test_costs_in_a_loop_count_as_often_as_it_turns():
    module = hlo.parse(estimated(estimated(LOOP, "mine", 100), "moved", 7))
    found = {c.name: c for c in costs(module, {"mine": 10**6, "moved": 5}, (197,), parse(PLACE))}
    assert (found["mine"].times, found["mine"].hlo, found["mine"].bundles) == (12, 1200, 12 * 10**6)
    assert (found["moved"].times, found["moved"].hlo) == (1, 7)
    assert sum(c.hbm for c in found.values()) == hbm_bytes(module)


def test_what_takes_longer_to_fetch_than_to_issue_takes_that_long():
    module, place = hlo.parse(LOOP.replace("[100]", "[100000]")), parse(PLACE)
    few, many = ({c.name: c for c in costs(module, {"moved": n}, (197,), place)} for n in (1, 10**6))
    seconds = 800_000 / place.chip.hbm_bandwidth  # half of the bytes are read, half written
    assert few["moved"].bundles == round(seconds * clock(place))
    assert many["moved"].bundles == 10**6
    assert few["start"].bundles == 0  # beside other work


def test_without_schedules_there_are_no_bundles():
    assert {c.bundles for c in costs(hlo.parse(LOOP), {}, (197,), parse(PLACE))} == {None}


@pytest.mark.usefixtures("compiler")
def test_flags_that_the_compiler_does_not_know_are_left_out(tmp_path, monkeypatch):
    """The compiler ends the process with a message, after which the case is compiled again without these flags."""
    environment = os.environ | {"LIBTPU_INIT_ARGS": "--xla_jf_no_such_flag=true"}
    program = "from tpu.compiler.topology import parse; parse('v5e:1x1').devices"
    refused = subprocess.run([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE, text=True)
    assert refused.returncode
    assert REFUSED in refused.stderr
    asked = []

    def run(command, env, **_):
        asked.append(env.get("LIBTPU_INIT_ARGS", ""))
        return refused if len(asked) == 1 else subprocess.CompletedProcess(command, 0, stderr="")

    monkeypatch.delenv("LIBTPU_INIT_ARGS", raising=False)
    monkeypatch.setattr(subprocess, "run", run)
    compile_case("mae", tmp_path, tmp_path)
    assert asked == [bundles.FLAGS.format(tmp_path / "schedules"), ""]


def test_a_case_that_does_not_compile_is_an_error_and_not_tried_again(tmp_path, monkeypatch, capsys):
    done = subprocess.CompletedProcess(["compile"], 1, stderr="Ran out of memory")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(subprocess.CalledProcessError):
        compile_case("mae", tmp_path, tmp_path)
    assert "Ran out of memory" in capsys.readouterr().err


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("issued", [{}, {"mine": 500}])
def test_groups_add_up_and_what_is_missing_is_left_out(tmp_path, issued):
    memory = dict.fromkeys(FIGURES, 2 * 10**9) | {"alias": 10**9, "seconds": 61.0}
    (tmp_path / "memory.json").write_text(json.dumps(memory))
    found = costs(hlo.parse(estimated(LOOP, "mine", 100)), issued, (197,), parse(PLACE))
    r = row("encoder", found, tmp_path, tmp_path)
    assert json.loads(json.dumps(r)) == r
    assert (r["temporaries"], r["peak"]) == (5 * 10**9, 7 * 10**9)
    for measure in MEASURES:
        parts = [group[measure] for group in r["groups"].values()]
        assert r[measure] == (None if None in parts else sum(parts))
    assert (r["bundles"] is None) == (not issued)
    assert len(table(r, 1.5e9).splitlines()) == 1 + len(GROUPS)
    [ratio] = ratios({"encoder": r, "mae": r, "yardstick": r})
    assert ratio.startswith("encoder / yardstick: hlo 1.00")
    assert ("bundles" in ratio) == bool(issued)


def test_the_yardstick_does_the_encoders_work():
    """As many parameters as the classifier, and the same function for either form of the exact GELU."""
    model = encoder("vit_l", class_token=False)
    ours, _ = abstract_classifier(Labelling(classes=CLASSES).with_encoder(model))
    images = jnp.zeros((1, 224, 224, 3))
    theirs = jax.eval_shape(lambda: ViT(Yardstick(True, True)).init(jax.random.key(0), images))["params"]
    assert optax.tree.size(theirs) == optax.tree.size(ours)
    sizes = {"width": 64, "depth": 2, "heads": 2, "mlp": 128, "patch_size": 8, "image_size": 16}
    flax = Yardstick(True, True, **sizes)
    others = [dataclasses.replace(flax, erf=True), dataclasses.replace(flax, exact_gelu=False)]

    @jax.jit
    def outputs(pixels):
        params = ViT(flax).init(jax.random.key(2), pixels)
        params["params"]["Dense_0"]["kernel"] += 1e-2 * jnp.arange(64)[:, None]  # which begins at zero
        return [ViT(c).apply(params, pixels) for c in (flax, *others)]

    expected, erf, tanh = outputs(jax.random.normal(jax.random.key(1), (2, 16, 16, 3)))
    assert jnp.abs(expected).max() > 0.1
    np.testing.assert_allclose(erf, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(tanh, expected, rtol=1e-2, atol=1e-2)
    assert jnp.abs(tanh - expected).max() > 1e-5


LAYERS, BATCH, TOKENS, HEADS, SIZE = 3, 8, 50, 4, 64
WIDTH = HEADS * SIZE


def scanned(kernels, x):
    def layer(x, kernel):
        heads = x.reshape(BATCH, TOKENS, HEADS, SIZE)
        logits = jnp.einsum("BTNH,BUNH->BNTU", heads, heads)
        mixed = jnp.einsum("BNTU,BUNH->BTNH", jax.nn.softmax(logits), heads).reshape(x.shape)
        return mixed @ kernel.astype(x.dtype), None

    return jnp.square(jax.lax.scan(layer, x, kernels)[0].astype(jnp.float32)).sum()


ARGUMENTS = ((LAYERS, WIDTH, WIDTH), jnp.float32), ((BATCH, TOKENS, WIDTH), jnp.bfloat16)


PROGRAM = """
import sys
from pathlib import Path
import jax
from tests.tpu.test_bench import ARGUMENTS, PLACE, scanned
from tpu.compiler.topology import parse
here = jax.sharding.SingleDeviceSharding(parse(PLACE).devices[0])
arguments = (jax.ShapeDtypeStruct(*argument, sharding=here) for argument in ARGUMENTS)
Path(sys.argv[1]).write_text(jax.jit(jax.grad(scanned)).lower(*arguments).compile().as_text())
"""


@pytest.fixture(scope="module")
def compiled(compiler, tmp_path_factory):
    """The program, and bundles by instruction. In a process of its own: libtpu reads its flags once."""
    folder = tmp_path_factory.mktemp("compiled")
    command = [sys.executable, "-c", PROGRAM, str(folder / "program.txt")]
    subprocess.run(command, check=True, env=os.environ | {"LIBTPU_INIT_ARGS": bundles.FLAGS.format(folder / "dump")})
    return hlo.parse((folder / "program.txt").read_text()), bundles.read(folder / "dump")


@pytest.mark.long
def test_every_product_of_a_compiled_scan_is_counted(compiled):
    """Forward and backward: three products for one, of the kernel and the two of attention."""
    module, _ = compiled
    found = [
        (product, times)
        for where, times in module.runs()
        for x in where.instructions.values()
        for product in products(module, where, x)
    ]
    flops = {b: sum(p.flops * times for p, times in found if p.batched == b) for b in (True, False)}
    assert flops[False] == LAYERS * 3 * 2 * BATCH * TOKENS * WIDTH**2
    assert flops[True] == LAYERS * 2 * 3 * 2 * BATCH * HEADS * TOKENS**2 * SIZE


def test_every_fusion_of_a_compiled_scan_has_bundles_and_a_group(compiled):
    module, issued = compiled
    found = {c.name: c for c in costs(module, issued, (TOKENS,), parse(PLACE))}
    for where, times in module.runs():
        for x in where.instructions.values():
            if x.opcode == "fusion":
                assert found[x.name].bundles >= times
    assert sum(c.name not in issued for c in found.values() if "fusion" in c.name) < 3  # equal ones are made once
    by_group = {group: {c.name for c in found.values() if c.group == group} for group in GROUPS}
    assert all(by_group[group] for group in ("products", "attention", "relayouts"))
    assert any("copy" in name or "reshape" in name for name in by_group["relayouts"])
    assert not by_group["optimizer"]
