"""Published weights by name, with address, family and licence.

Facts that are not certain are left out: a checksum if the file name has none, a revision (the newest is used, and its
commit is in the client's cache), models with an unknown file name. Weights outside the hub are listed with their
address, to be fetched by hand. Sources: the model pages and torchgeo 0.8, terratorch 1.2.
"""

import dataclasses
import hashlib
import re
from pathlib import Path

from scaling.core.config import nearest
from scaling.core.errors import UserError
from scaling.core.hub import fetch


@dataclasses.dataclass(frozen=True)
class Weights:
    """Published weights.

    Attributes:
      name: name for users.
      address: hf://ORG/REPO/FILE, or another address.
      family: name of the family in `scaling.interop.families`; empty if one file holds several, so that --from must
        name one.
      licence: licence of the weights.
      sha256: checksum of the file, or its beginning if only that is published.
    """

    name: str
    address: str
    family: str
    licence: str
    sha256: str = ""

    def fetch(self) -> Path:
        """Local path of the file.

        Raises:
          UserError: see `scaling.core.hub.fetch`; or weights outside the hub, or a wrong checksum.
        """
        if not self.address.startswith("hf://"):
            raise UserError(
                f"--model={self.name}: its weights lie at {self.address}; fetch them, then "
                f"--input=FILE --from={self.family}"
            )
        return self.checked(fetch(self.address))

    def checked(self, file: Path) -> Path:
        """A file that is here. Raises UserError where it has another checksum than the published one."""
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if not found.startswith(self.sha256):
            raise UserError(
                f"--model={self.name}: {file} has the sha256 {found[:12]}…, published is {self.sha256}…; these "
                "are other weights: give them with --input to read them all the same"
            )
        return file

    @property
    def file(self) -> str:
        """The published name of the file."""
        return self.address.replace(" ", "/").rpartition("/")[2]

    def find(self, folder: Path) -> Path | None:
        """The file in a folder of weights: FOLDER/NAME/FILE or FOLDER/FILE, by its published name; None where it is
        not there.

        Raises:
          UserError: FOLDER/FILE is there, but other models have files of its name, and its checksum is not known.
        """
        if (own := folder / self.name / self.file).is_file():
            return own
        if not (here := folder / self.file).is_file():
            return None
        others = [weights.name for weights in PUBLISHED.values() if weights.file == self.file and weights is not self]
        if others and not self.sha256:
            raise UserError(
                f"--weights={folder}: {self.file} may be of {self.name} or of {', '.join(others)}, whose files have "
                f"this name too; move it to {own}"
            )
        return here


_NC, _APACHE, _BY, _BY_UNSURE = "CC-BY-NC 4.0", "Apache-2.0", "CC-BY-4.0", "CC-BY-4.0 (not verified)"
_MAE, _MOCO = "https://dl.fbaipublicfiles.com/mae/pretrain", "https://dl.fbaipublicfiles.com/moco-v3"
_SSL4EO_S = "vit_small_patch16_224_sentinel2_all"
_IBM, _ESA = "hf://ibm-nasa-geospatial", "hf://ibm-esa-geospatial"


def _short(name: str, address: str, family: str, licence: str) -> Weights:
    """The beginning of the checksum in a file name of torch's hub: NAME-0a1b2c3d.pth."""
    mark = re.search(r"-([0-9a-f]{8})\.\w+$", address)
    return Weights(name, address, family, licence, mark[1] if mark else "")


_ALL = (
    *(
        _short(f"dofa_{size}", f"hf://torchgeo/dofa/dofa_{size}_patch16_224-{mark}.pth", "dofa", _BY_UNSURE)
        for size, mark in (("base", "a0275954"), ("large", "0ff904d3"))
    ),
    _short(
        "copernicus_fm_base",
        "hf://torchgeo/copernicus-fm/CopernicusFM_ViT_base_varlang-085350e4.pth",
        "copernicus_fm",
        _BY,
    ),
    _short(
        "panopticon_base",
        "hf://lewaldm/panopticon/panopticon_vitb14_teacher.pth",
        "panopticon",
        "Apache-2.0 (not verified)",
    ),
    *(
        _short(f"croma_{size}", f"hf://torchgeo/croma/CROMA_{size}-{mark}.pt", "croma_optical", "MIT")
        for size, mark in (("base", "0238d814"), ("large", "921e69ad"))
    ),
    _short("clay_v15", "hf://made-with-clay/Clay/v1.5/clay-v1.5.ckpt", "clay_v15", _APACHE),
    *(
        _short(f"galileo_{size}", f"hf://nasaharvest/galileo/models/{size}/encoder.pt", "galileo", "MIT")
        for size in ("nano", "tiny", "base")
    ),
    *(
        _short(f"terramind_{size}", f"{_ESA}/TerraMind-1.0-{size}/TerraMind_v1_{size}.pt", "", _APACHE)
        for size in ("base", "large")
    ),
    _short("prithvi_v1_100m", f"{_IBM}/Prithvi-EO-1.0-100M/Prithvi_EO_V1_100M.pt", "prithvi_v1", _APACHE),
    *(
        _short(
            f"prithvi_v2_{size.lower()}",
            f"{_IBM}/Prithvi-EO-2.0-{size.replace('_', '-')}/Prithvi_EO_V2_{size}.pt",
            "prithvi_v2",
            _APACHE,
        )
        for size in ("300M", "300M_TL", "600M", "600M_TL")
    ),
    *(
        _short(
            f"ssl4eo_s12_{how}_s16",
            f"hf://torchgeo/{_SSL4EO_S}_{how}@{revision}/{_SSL4EO_S}_{how}-{mark}.pth",
            "ssl4eo_s12",
            _BY_UNSURE,
        )
        for how, mark, revision in (
            ("moco", "67c9032d", "1cb683f6c14739634cdfaaceb076529adf898c74"),
            ("dino", "36bcc127", "5b41dd418a79de47ac9f5be3e035405a83818a62"),
        )
    ),
    *(
        _short(
            f"ssl4eo_s12_mae_{bands.lower()}_{size}",
            f"hf://wangyi111/SSL4EO-S12/{bands}_vit{size}_mae_ep{epochs}_enc.pth",
            "ssl4eo_s12",
            _BY_UNSURE,
        )
        for bands in ("B13", "B2")
        for size, epochs in (("s16", 99), ("b16", 99), ("l16", 99), ("h14", 199))
    ),
    *(
        _short(
            f"softcon_{bands.lower()}_{size}",
            f"hf://wangyi111/softcon/{bands}_vit{size}_softcon_enc.pth",
            "softcon",
            _BY_UNSURE,
        )
        for bands in ("B13", "B2")
        for size in ("s14", "b14")
    ),
    *(
        _short(f"fb_mae_{size}", f"{_MAE}/mae_pretrain_vit_{size}.pth", "fb_mae", _NC)
        for size in ("base", "large", "huge")
    ),
    *(
        _short(f"moco_v3_{size}", f"{_MOCO}/vit-{size[0]}-300ep/vit-{size[0]}-300ep.pth.tar", "moco_v3", _NC)
        for size in ("small", "base")
    ),
    *(
        _short(f"satmae_{size}_groups", f"Zenodo, record 7338613, pretrain-vit-{size}-e199.pth", "satmae_groups", _NC)
        for size in ("base", "large")
    ),
    _short("satmae_large_rgb", "Zenodo, record 7369797, fmow_pretrain.pth", "fb_mae", _NC),
    _short("spectral_gpt", "Zenodo, record 8412455, SpectralGPT.pth", "spectral_gpt", "GPL-3 (code)"),
)
PUBLISHED = {weights.name: weights for weights in _ALL}


def published(name: str) -> Weights:
    """The weights of this name; raises a UserError for an unknown name."""
    if name not in PUBLISHED:
        close = nearest(name, list(PUBLISHED), "there are ")
        raise UserError(f"--model={name}: not known by name{close}; --model=? lists them, --input=FILE reads any file")
    return PUBLISHED[name]


def table_of_published() -> str:
    """All published weights, one per line."""
    lines = [
        f"{w.name:<24} {w.family or '(give --from)':<16} {w.licence:<28} {w.address}"
        + (f"  sha256 {w.sha256}…" if w.sha256 else "")
        for w in _ALL
    ]
    return "\n".join(lines)
