"""The data sets that encoders are probed on."""

from scaling.studies.slimming.datasets import DatasetConfig, with_splits
from tests.data.examples import class_folders


def test_folders_of_classes_are_parted_and_others_stay_as_they_are(tmp_path):
    plain, scenes = f"folder:{class_folders(tmp_path, 5)}", DatasetConfig(source="scenes?size=16")
    studied = with_splits({"mine": DatasetConfig(source=plain, limit=7), "scenes": scenes})
    assert studied["mine"] == DatasetConfig(plain, "train[:80%,stratified]", "train[80%:,stratified]", limit=7)
    assert studied["scenes"] == scenes
