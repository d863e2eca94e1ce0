"""Every token as the published implementations computed it, recorded by tests/interop/record.py: no torch here."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from safetensors.numpy import save_file

from scaling.evaluation.encoder import load_encoder
from scaling.interop.acquisition import Acquisition
from scaling.interop.importing import import_weights, write_checkpoint

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.npz"))
GIVEN = {field.name for field in dataclasses.fields(Acquisition)}


def acquisition(options):
    given = {name: tuple(x) if isinstance(x, list) else x for name, x in options.items() if name in GIVEN}
    return Acquisition(**given), {name: x for name, x in options.items() if name not in GIVEN}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_all_tokens_agree(path, tmp_path):
    record = np.load(path)
    file = {key.removeprefix("file/"): record[key] for key in record.files if key.startswith("file/")}
    save_file({key: np.ascontiguousarray(x) for key, x in file.items()}, tmp_path / "w.safetensors")
    given, options = acquisition(json.loads(str(record["about"]))["options"])
    write_checkpoint(import_weights(tmp_path / "w.safetensors", given=given, **options), epath.Path(tmp_path / "run"))
    ours = load_encoder(tmp_path / "run").features(record["images"], "tokens")
    theirs = record["tokens"]
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
