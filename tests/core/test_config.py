"""Config files to dataclasses and back, and the messages for wrong ones."""

import dataclasses
import json
import re
import runpy

import ml_collections
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.core.config import config_dict, find_config, from_config_dict
from scaling.core.errors import UserError
from scaling.core.rows import config_hash
from scaling.studies.efficiency.settings import EfficiencyConfig
from scaling.studies.slimming.cells import SlimmingStudyConfig
from scaling.training.config import FinetuneConfig, TrainConfig
from scaling.training.recipes import mae_recipe


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = 3
    bands: tuple[int, ...] = ()
    scale: tuple[float, float] = (0.2, 1.0)


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str = "x"
    rate: float = 0.5
    fast: bool = False
    inner: Inner = dataclasses.field(default_factory=Inner)


configs = st.builds(
    Outer,
    name=st.text(),
    rate=st.floats(allow_nan=False, allow_infinity=False),
    fast=st.booleans(),
    inner=st.builds(
        Inner,
        size=st.integers(-(2**53), 2**53),
        bands=st.lists(st.integers(0, 12)).map(tuple),
        scale=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    ),
)


@given(configs)
def test_a_config_comes_back_from_its_dictionary_and_from_json(config):
    assert from_config_dict(Outer, config_dict(config)) == config
    assert from_config_dict(Outer, json.loads(config_dict(config).to_json())) == config


@pytest.mark.parametrize(
    ("file", "part", "name", "message"),
    [
        ("vit_b.py", "objective", "slimmable", "the fields of mae, which differ; give a config of slimmable, such as"),
        ("vit_b.py", "objective", "moco", "the fields of mae, which differ; give a config of moco, such as moco_b.py"),
        ("moco_b.py", "objective", "mae", "the fields of moco, which differ; give a config of mae, such as vit_b.py"),
        ("finetune.py", "task", "segmentation", "of classification, which differ; give a config of segmentation, such"),
    ],
)
def test_a_config_of_another_objective_is_named_as_one(file, part, name, message):
    values = runpy.run_path(str(find_config(file)))["get_config"]()
    values[part].name = name
    with pytest.raises(UserError, match=rf"^{part}\.name={name}: the config has .*{message}"):
        from_config_dict(TrainConfig if part == "objective" else FinetuneConfig, values)


def test_a_whole_experiment_comes_back_from_json():
    config = mae_recipe("vit_l12x4", remat="dots")
    assert from_config_dict(TrainConfig, json.loads(config_dict(config).to_json_best_effort())) == config


def test_fields_that_are_missing_take_their_defaults():
    assert from_config_dict(Outer, {"inner": {"size": 7}}) == Outer(inner=Inner(size=7))
    assert from_config_dict(Outer, {}) == Outer()


def test_a_config_dict_is_locked():
    with pytest.raises(AttributeError):
        config_dict(Outer()).nothing = 1


def test_of_many_fields_ten_are_listed_the_similar_ones_first():
    wide = dataclasses.make_dataclass("Wide", [(f"field{i}", int, 0) for i in range(20)] + [("lift", int, 0)])
    with pytest.raises(UserError) as caught:
        from_config_dict(wide, {"aalift_zzz": 1})
    listed = "unknown config field aalift_zzz; the fields are lift, field0, field1, .*, field8 "
    assert re.fullmatch(f"{listed}and 11 more; --print_config lists all", str(caught.value))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nmae": "y"}, "unknown config field nmae; did you mean name?"),
        ({"inner": {"sise": 1}}, "unknown config field inner.sise; did you mean size?"),
        ({"inner": {"qqq": 1}}, "unknown config field inner.qqq; the fields are size, bands, scale"),
        ({"rate": "0.5"}, "config field rate takes float, not '0.5'"),
        ({"rate": float("nan")}, "rate=nan: must be a number; give one, or leave the field out"),
        ({"rate": True}, "config field rate takes float, not True"),
        ({"fast": 1}, "config field fast takes bool, not 1"),
        ({"name": 3}, "config field name takes str, not 3"),
        ({"inner": {"size": 2.5}}, "config field inner.size takes int, not 2.5"),
        ({"inner": {"size": True}}, "config field inner.size takes int, not True"),
        ({"inner": {"bands": 3}}, "config field inner.bands takes tuple, not 3"),
        ({"inner": {"bands": (1, "red")}}, "config field inner.bands takes int, not 'red'"),
        ({"inner": {"scale": (1.0,)}}, "config field inner.scale takes 2 values, not (1.0,)"),
        ({"inner": 3}, "config field inner takes fields, not 3"),
    ],
)
def test_a_wrong_value_is_refused_by_name(values, message):
    with pytest.raises(UserError) as e:
        from_config_dict(Outer, values)
    assert str(e.value) == message


def test_whole_numbers_pass_as_floats_also_inside_tuples():
    config = from_config_dict(Outer, {"rate": 2, "inner": {"scale": [0, 1]}})
    assert (config.rate, config.inner.scale) == (2.0, (0.0, 1.0))
    assert {type(x) for x in (config.rate, *config.inner.scale)} == {float}


def test_a_config_file_is_found_by_path_and_by_bare_name(tmp_path, monkeypatch):
    assert find_config("vit_h.py").name == "vit_h.py"
    mine = tmp_path / "mine.py"
    mine.write_text("")
    assert find_config(str(mine)) == mine
    monkeypatch.chdir(tmp_path)
    assert find_config("mine.py") == mine
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "vit_h.py").write_text("")
    assert find_config("vit_h.py") == tmp_path / "configs" / "vit_h.py"


def test_a_config_file_that_is_not_there():
    with pytest.raises(UserError, match=r"no config file 'vit_l12x5\.py'; did you mean vit_l12x4\.py\?"):
        find_config("vit_l12x5.py")
    with pytest.raises(UserError, match=r"no config file 'zzz'; the shipped ones are .*quickstart\.py.*vit_ti\.py"):
        find_config("zzz")


COMMANDS = {
    f"slim{which}.py": ("slim", SlimmingStudyConfig)
    for which in ("", "_hurricane", "_matched", "_redundancy", "_slimmable")
}
COMMANDS |= dict.fromkeys(
    (
        "finetune.py",
        "finetune_slimmable.py",
        "segment.py",
        "segment_scenes.py",
        "segment_g12x4.py",
        "detect.py",
        "detect_g12x4.py",
        "detect_scenes.py",
    ),
    ("finetune", FinetuneConfig),
)
COMMANDS |= dict.fromkeys(("depth.py", "slim_depth.py", "slim_galileo.py"), ("slim", SlimmingStudyConfig))
COMMANDS |= dict.fromkeys(("efficiency.py", "efficiency_pixels.py"), ("efficiency", EfficiencyConfig))


@pytest.mark.parametrize("path", sorted(find_config("quickstart.py").parent.glob("*.py")), ids=lambda p: p.name)
def test_every_shipped_config_can_be_built(path):
    space: dict = {}
    exec(path.read_text(), space)
    config = space["get_config"]()
    assert isinstance(config, ml_collections.ConfigDict)
    command, kind = COMMANDS.get(path.name, ("train", TrainConfig))
    from_config_dict(kind, config).check()
    assert re.search(rf"python -m scaling\.{command} [^`]*--config={path.name}", space["__doc__"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "steps=0: must be at least 1"),
        ({"log_every": 0}, "log_every=0: must be at least 1"),
        ({"dtype": "float16"}, "dtype='float16': must be one of auto, float32, bfloat16"),
        ({"ema_decay": 1.0}, "ema_decay=1.0: must be at least 0 and below 1"),
    ],
)
def test_an_impossible_run_is_refused_before_anything_is_loaded(fields, message):
    with pytest.raises(UserError, match=message):
        TrainConfig(**fields).check()


# Of the first rows; studies that were begun then are continued.
HASHES = {
    "quickstart.py": (TrainConfig, "030dcd9319a5"),
    "vit_h.py": (TrainConfig, "325beb9eddb4"),
    "hurricane_ti8.py": (TrainConfig, "79805f0da558"),
    "finetune.py": (FinetuneConfig, "b9e453d0d744"),
    "slim.py": (SlimmingStudyConfig, "be2b957704f9"),
    "slim_matched.py": (SlimmingStudyConfig, "67025ba3be2f"),
}


@pytest.mark.parametrize(("name", "kind", "expected"), [(name, *of) for name, of in HASHES.items()])
def test_the_hash_of_a_configuration_stays_when_fields_move_or_are_added(name, kind, expected):
    config = from_config_dict(kind, runpy.run_path(str(find_config(name)))["get_config"]())
    assert config_hash(dataclasses.asdict(config)) == expected
    other = dataclasses.replace(config, **({"seed": 1} if kind is not SlimmingStudyConfig else {"neighbours": 3}))
    assert config_hash(dataclasses.asdict(other)) != expected


def test_a_group_of_fields_in_place_of_a_number_is_shown_on_one_line():
    values = config_dict(TrainConfig()).to_dict()
    values["steps"] = ml_collections.ConfigDict({"a": 1, "b": 2})
    with pytest.raises(UserError, match=r"^config field steps takes int, not .*$") as raised:
        from_config_dict(TrainConfig, values)
    assert len(str(raised.value).splitlines()) == 1
