"""The models with public weights, the data sets and the study behind a paper's table.

Uncertain parts are left out, and named in `unknown` or `absent`. Sources: arXiv 2601.22841 and its project
page (hackelle/slimmable-rsfms); bands of each model from its published axis of operations; wavelengths and bandwidths
of Sentinel-2 as Copernicus-FM's README has them.
"""

import dataclasses
from pathlib import Path

from scaling.core.config import nearest
from scaling.core.errors import UserError
from scaling.core.rows import Row, read_rows

# band: nanometres of its centre and its width
SENTINEL2 = {
    "B01": (440, 20), "B02": (490, 65), "B03": (560, 35), "B04": (665, 30), "B05": (705, 15), "B06": (740, 15),
    "B07": (783, 20), "B08": (842, 115), "B8A": (860, 20), "B09": (940, 20), "B10": (1370, 30), "B11": (1610, 90),
    "B12": (2190, 180),
}  # fmt: skip
_ALL = tuple(SENTINEL2)
_TEN = ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B11", "B12", "B8A")
_TWELVE = tuple(band for band in _ALL if band != "B10")
_SIX = ("B02", "B03", "B04", "B8A", "B11", "B12")


@dataclasses.dataclass(frozen=True)
class PaperModel:
    """A model of a paper.

    Attributes:
      name: name in the published rows, and in `scaling.models.variants`.
      weights: name in `scaling.interop.published`.
      bands: bands of its input.
      family: family to read, if the file holds several; empty for that of the weights.
    """

    name: str
    weights: str
    bands: tuple[str, ...]
    family: str = ""


@dataclasses.dataclass(frozen=True)
class Paper:
    """A paper whose table can be computed.

    Attributes:
      name: name of the paper, and of the study in rows.
      title: title of the paper.
      rows: file of its published numbers, in `results/published` of a checkout.
      study: study of the rows to compare with.
      models: models with public weights.
      datasets: name of each data set to the options of its source, which give the units.
      image_size: pixels.
      unknown: details of the measurement that the paper does not state.
      absent: parts of its tables that cannot be computed here, and why.
    """

    name: str
    title: str
    rows: str
    study: str
    models: tuple[PaperModel, ...]
    datasets: dict[str, str]
    image_size: int
    unknown: str
    absent: tuple[str, ...]

    def published(self) -> list[Row]:
        """The published numbers of the paper. Raises a UserError if their file is missing."""
        package = Path(__file__).resolve().parents[2]
        folders = (package.parent / "results" / "published", package / "published")  # of a checkout, of a wheel
        file = next((path for folder in folders if (path := folder / self.rows).is_file()), folders[0] / self.rows)
        return [row for row in read_rows(file) if row.study == self.study]

    def model(self, name: str) -> PaperModel | None:
        """The model with this name in the paper or of its weights; None if the paper has none."""
        return next((model for model in self.models if name in (model.name, model.weights)), None)


PAPERS = {
    paper.name: paper
    for paper in (
        Paper(
            name="hackel2026",
            title="Hackel, Burgert, Demir: How Much of a Model Do We Need? (arXiv 2601.22841)",
            rows="slimming.rows.jsonl",
            study="slimmable_rsfms",
            models=(
                PaperModel("dofa_base", "dofa_base", _TEN),
                PaperModel("dofa_large", "dofa_large", _TEN),
                PaperModel("terramind_v1_base", "terramind_base", _TWELVE, "terramind_s2l2a"),
                PaperModel("terramind_v1_large", "terramind_large", _TWELVE, "terramind_s2l2a"),
                PaperModel("prithvi_eo_v2_300", "prithvi_v2_300m", _SIX),
                PaperModel("prithvi_eo_v2_600", "prithvi_v2_600m", _SIX),
                PaperModel("ssl4eo_s12_vits16_moco", "ssl4eo_s12_moco_s16", _ALL),
                PaperModel("ssl4eo_s12_vits16_dino", "ssl4eo_s12_dino_s16", _ALL),
                PaperModel("panopticon_vitb14", "panopticon_base", _ALL),
                PaperModel("copernicus_fm_base", "copernicus_fm_base", _ALL),
            ),
            datasets={"m-eurosat": "", "m-bigearthnet": "", "m-brick-kiln": "", "m-so2sat": "scale=10000"},
            image_size=224,
            unknown="distance and weights of the neighbours, pooling of the tokens, normalisation, interpolation of "
            "the resize, which names of GEO-Bench's bands were believed, what stood for bands that a set does not have",
            absent=(
                "its own ViT-B (MAE, MoCo, regular and slimmable): no public weights are known",
                "m-cashew-plant, m-SA-crop-type and OSCD: of a segmentation head whose recipe is not published",
                "fine-tuning: its recipe is not published but for the rate",
            ),
        ),
    )
}


def paper_of(name: str) -> Paper:
    """The paper of this name; raises a UserError if there is none."""
    if name not in PAPERS:
        raise UserError(f"--paper={name}: its numbers are not included{nearest(name, list(PAPERS), 'give one of ')}")
    return PAPERS[name]
