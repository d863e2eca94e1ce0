"""The configuration in a checkpoint is readable, whatever version wrote it."""

import json
from pathlib import Path

import pytest

from scaling.core.config import config_dict
from scaling.core.rows import config_hash
from scaling.objectives import objective_config
from scaling.training.config import FinetuneConfig, TrainConfig
from scaling.training.stored_config import ImportConfig, objective_of, stored_config

# Written when the decoder, the masks and the head were fields of `model`.
FORMAT_1 = json.loads((Path(__file__).parent / "format_1.json").read_text())


def test_a_pretraining_keeps_its_decoder_its_masks_and_the_scales_of_its_parametrization():
    c = stored_config(FORMAT_1["pretraining"])
    model = FORMAT_1["pretraining"]["model"]
    assert type(c) is TrainConfig
    assert c.objective == objective_config(
        "mae",
        decoder_width=64,
        decoder_depth=1,
        decoder_heads=4,
        decoder_attention_scale=model["decoder_attention_scale"],
        mask_ratio=0.6,
        normalize_targets=False,
    )
    assert c.objective.decoder_attention_scale != 0.0
    assert (c.model.width, c.model.attention_scale) == (192, model["attention_scale"])
    assert c.resolved() == c
    assert objective_of(c) == "mae"


def test_a_fine_tuning_keeps_its_head_and_its_targets():
    c = stored_config(FORMAT_1["fine-tuning"])
    assert c.task == objective_config(
        "classification", classes=7, multi_label=True, pool="cls", label_smoothing=0.1, mixup=0.8
    )
    assert c.model.width == 64
    assert objective_of(c) == "finetune"


def test_fields_are_read_under_the_names_that_they_had_at_first():
    at_first = {"average": 0.5, "width": 0.25, "slim": "token"}
    c = stored_config(FORMAT_1["fine-tuning"] | at_first)
    assert isinstance(c, FinetuneConfig)
    assert (c.ema_decay, c.width_ratio, c.mode) == (0.5, 0.25, "token")
    assert config_hash(at_first) == config_hash({"ema_decay": 0.5, "width_ratio": 0.25, "mode": "token"})


def test_an_import_keeps_its_decoder():
    c = stored_config(FORMAT_1["import"])
    assert type(c) is ImportConfig
    assert c.decoder == objective_config("mae", decoder_depth=4)
    assert c.networks == ("encoder", "decoder")


@pytest.mark.parametrize("values", FORMAT_1.values(), ids=FORMAT_1)
def test_what_was_read_is_written_as_it_is_now(values):
    c = stored_config(values)
    assert stored_config(config_dict(c).to_dict()) == c
