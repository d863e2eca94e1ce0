"""A search for the depth and the widths of an encoder."""

from typing import Any

from etils import epath

from scaling.api.checks import Source, checked, source_of
from scaling.core.config import from_config_dict
from scaling.core.paths import check_folder, user_path
from scaling.encoders.encoder import Encoder
from scaling.encoders.loading import load_encoder
from scaling.encoders.splits import Split
from scaling.studies.grid import Grid
from scaling.studies.journal import Journal
from scaling.studies.search.budgets import LATENCY, parse_budget
from scaling.studies.search.study import Search, SearchConfig, check_budget, counted


@checked
def search(
    encoder: Encoder,
    budget: str,
    output: epath.PathLike,
    source: Source,
    split: str = "train",
    limit: int = 512,
    **c: Any,
) -> Encoder:
    """The encoder with the depth and the widths that are best under one budget, without labels or training.

    Args:
      encoder: the whole encoder.
      budget: latency:20ms (on this device), flops:0.2 (relative to the whole encoder) or params:20M.
      output: folder for the rows and for the winner, which is saved as a checkpoint; the same call resumes.
      source, split, limit: unlabelled images, at least 32; see `features`. Half of them are used for repairs, a quarter
        to choose among candidates, and a quarter for the reported errors.
      c: fields of `scaling.studies.search.study.SearchConfig`, such as axes=("layers", "mlp") or candidates=100.

    Raises:
      UserError: a budget that no candidate meets, or that the whole encoder already meets; unknown fields; or images
        that do not fit the encoder.

    >>> encoder = scaling.load("runs/tiny")
    >>> options = {"limit": 32, "axes": ("layers", "mlp"), "widths": (0.5, 1.0)}
    >>> small = scaling.search(encoder, "flops:0.9", "runs/searched", "scenes?size=16&count=64", **options)
    >>> small.config.depth * small.config.mlp < encoder.config.depth * encoder.config.mlp
    True
    """
    config, limits = from_config_dict(SearchConfig, c), parse_budget(budget)
    config.check(encoder)
    space = config.space(encoder)
    if limits.kind != LATENCY:
        check_budget(space, limits, counted(space, limits.kind))
    folder = check_folder("output", user_path("output", output), checkpoints=True)
    found = Search(encoder, folder.name, Split(encoder, source_of(source), split, limit), config, limits, folder)
    with found.journal.open():
        found.run(_run)
    return load_encoder(folder)


def _run(jobs: list[Any], journal: Journal) -> None:
    Grid(jobs, journal).run().check("candidates", "measured")
