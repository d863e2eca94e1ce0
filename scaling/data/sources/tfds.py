"""Data sets prepared by TensorFlow Datasets, read without TensorFlow."""

import functools
import itertools
from typing import Any

import numpy as np

from scaling.core.errors import UserError, first_line
from scaling.data.sources.base import Info, Stored
from scaling.data.sources.slices import no_split


class Tfds(Stored):
    """One split of a prepared data set; `name` may carry a config and a version, `eurosat/rgb:2.0.0`, `split` a slice.

    The image is the feature called `image`, or else the only one with three dimensions. Encoded images stay encoded
    until they are read.

    Attributes:
      shards: file, first record and end (exclusive) of each part of the split.

    Raises:
      UserError: no such set or split, or one with repeated images, `train+train`.
    """

    def __init__(self, name: str, split: str, data_dir: str | None = None):
        import tensorflow_datasets as tfds

        self.spec, self.split, self.data_dir = f"tfds:{name}", split, data_dir
        try:
            info = tfds.builder(name, data_dir=data_dir).info
        except Exception as error:  # the library raises a dozen kinds for a name it cannot place
            raise UserError(f"{self.spec}: {str(error).splitlines()[0] if str(error) else error!r}") from error
        if not info.splits:
            raise UserError(
                f"{self.spec}: not prepared in {info.data_dir}; set data_dir, or where TensorFlow is installed "
                f"(pip install tensorflow) run `tfds build {name} --file_format=array_record`"
            )
        try:
            part = info.splits[split]  # also of a slice, `train[:80%]`
            self._name, self._count = name, part.num_examples
            self.shards = [(file.filename, file.skip, file.skip + file.take) for file in part.file_instructions]
        except (KeyError, ValueError, AssertionError) as error:
            raise no_split(self.spec, split, info.splits) from error
        for (file, _, stop), (following, start, _) in itertools.pairwise(sorted(self.shards)):
            if file == following and start < stop:
                raise UserError(f"{self.spec}: split {split!r} contains images twice; name every image once")
        self._image, self._encoded = _image_feature(info.features, self.spec)
        label = info.features["label"] if "label" in info.features else None  # noqa: SIM401  no dict
        self.info = Info(tuple(getattr(label, "names", None) or ()))
        self._labelled = isinstance(label, tfds.features.ClassLabel)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_records"}

    @functools.cached_property
    def _records(self) -> Any:
        import tensorflow_datasets as tfds

        decoders = {self._image: tfds.decode.SkipDecoding()} if self._encoded else None
        try:
            return tfds.data_source(
                self._name, split=self.split, data_dir=self.data_dir, download=False, decoders=decoders
            )
        except Exception as error:
            why = first_line(error)
            raise UserError(f"{self.spec}: {why} (random access needs file_format=array_record)") from error

    def __len__(self) -> int:
        return self._count

    def stored(self, index: int) -> tuple[bytes | np.ndarray, int]:
        """The encoded image or the array, and the label."""
        record = self._records[index]
        image = record[self._image]
        return image if self._encoded else np.asarray(image), int(record["label"]) if self._labelled else -1

    def name(self, index: int) -> str:
        return f"{self.spec} {self.split} {index}"


def _image_feature(features: Any, spec: str) -> tuple[str, bool]:
    """Name of the feature that holds the image, and whether it is an encoded file."""
    import tensorflow_datasets as tfds

    found = ["image"] if "image" in features else [key for key, f in features.items() if len(f.shape or ()) == 3]
    if len(found) != 1:
        raise UserError(f"{spec}: which feature is the image? It has {', '.join(features)}; convert it to files first")
    return found[0], isinstance(features[found[0]], tfds.features.Image)
