"""The plan of a reproduction: its downloads and computations, and their time on this device."""

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from scaling.core.errors import TemporaryError, UserError
from scaling.core.files import write_whole
from scaling.core.hub import downloads, in_hub
from scaling.data.sources.registry import open_source
from scaling.encoders.loading import describe_encoder
from scaling.studies.reproduction.papers import Paper
from scaling.studies.reproduction.parts import Subject, dataset_of, source_of, stand_ins
from scaling.studies.slimming.cells import SlimmingStudyConfig, cells
from scaling.studies.slimming.run import cell_cost
from scaling.studies.slimming.study import Study


@dataclasses.dataclass(frozen=True)
class Asked:
    """Options of a reproduction beside models and data sets.

    Attributes:
      study: settings of the study, without data sets.
      data: folder of the data sets; empty where none is given.
      weights: folder of the weights; None for the hub.
      stored: whether names of bands are those stored in GEO-Bench's files.
      fill: see `dataset_of`.
      limit: images of each split; 0 for all.
      output: folder of the reproduction.
    """

    study: SlimmingStudyConfig
    data: str
    weights: Path | None
    stored: bool
    fill: str
    limit: int
    output: epath.Path

    @property
    def trial(self) -> str:
        """A warning that not all images are used; empty if they are."""
        return f"A trial, no result: at most {self.limit:,} images of each split" if self.limit else ""

    @property
    def choices(self) -> dict[str, Any]:
        """The choices that identify a folder of rows, including those that the paper does not state."""
        names = "stored" if self.stored else "corrected"
        own = {"data": self.data.rstrip("/"), "names": names, "fill": self.fill, "limit": self.limit}
        return dataclasses.asdict(self.study) | own

    def check(self) -> dict[str, Any]:
        """The choices as they are written. Raises a UserError if the folder was begun with others."""
        file = self.output / "config.json"
        mine = json.loads(json.dumps(self.choices))
        begun = json.loads(file.read_text()) if file.exists() else mine
        known = [name for name in mine if name != "data" or self.data]  # a plan needs no data
        if changed := [name for name in known if begun.get(name, mine[name]) != mine[name]]:
            name = changed[0]
            raise UserError(
                f"--output={self.output} was started with {name} {begun.get(name)}, but now it is {mine[name]}; choose "
                "another"
            )
        return mine

    def keep(self) -> None:
        """Writes the choices beside the rows. Raises as `check`."""
        write_whole(self.output / "config.json", json.dumps(self.check(), indent=2) + "\n")

    def of(self, dataset: str, subject: Subject, paper: Paper) -> tuple[SlimmingStudyConfig, str]:
        """The study of a data set with the encoder of a subject, which must be in the output, and how its images are
        normalised, in words. Raises as `dataset_of`.
        """
        spec = source_of(paper, self.data, dataset, self.stored)
        c, normalised = dataset_of(describe_encoder(subject.folder), spec, self.fill, self.limit)
        if "linear" in self.study.probes:
            c = dataclasses.replace(c, validation_split="validation")
        return dataclasses.replace(self.study, datasets={dataset: c}), normalised


class Hub:
    """Answers of the hub about addresses; after one failed request it is not asked again."""

    def __init__(self) -> None:
        self.size, self._silent = 0, ""

    def has(self, text: str) -> bool:
        """Whether all files of an address are in the client's cache, if the hub lists them."""
        try:
            return not self._silent and all(file.here for file in downloads(text))
        except (ImportError, UserError):
            return False

    def said(self, text: str) -> str:
        """The downloads of an address in words; known sizes in bytes are added to `size`."""
        try:
            found = [] if self._silent else downloads(text)
        except ImportError:
            self._silent = "needs the extra [hub]"
        except TemporaryError:
            self._silent = "the hub does not answer"
        except UserError as e:  # the plan is of use without it
            return f"download {text}: {e}"
        if self._silent:
            return f"download {text}, size not known: {self._silent}"
        left = [file for file in found if not file.here]
        if not left:
            return f"in the cache of the hub: {text}"
        size = sum(file.size or 0 for file in left)
        self.size += size
        unknown = " and files of unknown size" * any(file.size is None for file in left)
        return f"download {text}: {len(left):,} file{'s' * (len(left) > 1)}, {size / 1e6:,.1f} MB{unknown}"


def weights_of(subject: Subject, place: Path | None, hub: Hub) -> str:
    """Origin of the weights of a subject, in words."""
    if subject.is_here:
        return f"here: {subject.folder}"
    if place and (file := subject.weights.find(place)):
        return f"here: {file}, {file.stat().st_size / 1e6:,.1f} MB"
    if not subject.weights.address.startswith("hf://"):
        return f"to be fetched by hand: {subject.weights.address}"
    return hub.said(subject.weights.address)


@dataclasses.dataclass(frozen=True)
class Part:
    """One model on one data set.

    Attributes:
      encoders: number of encoders left to measure.
      operations: operations of these, on all images; None if not known yet.
      said: the rest, in words.
    """

    encoders: int
    operations: float | None
    said: str


def part_of(asked: Asked, paper: Paper, subject: Subject, dataset: str, hub: Hub) -> Part:
    """The remaining work for a model on a data set; raises a UserError if they do not fit."""
    place = f"{asked.data.rstrip('/')}/{dataset}"
    local = bool(asked.data) and (hub.has(place) if in_hub(place) else True)
    images = 0
    if local:
        spec = source_of(paper, asked.data, dataset, asked.stored)
        info = open_source(spec, "train").info
        splits = ("train", "test", *(["validation"] if "linear" in asked.study.probes else []))
        counts = [len(open_source(spec, split)) for split in splits]
        images = sum(min(asked.limit or count, count) for count in counts)
        if subject.bands:
            stand_ins(subject.bands, info.bands, spec, asked.fill)
    if subject.is_here and local:
        encoder = describe_encoder(subject.folder)
        study = Study(encoder, asked.of(dataset, subject, paper)[0], subject.name, asked.output)
        costs = [job.template.flops for job in study.grid.todo()]
        outlook = study.grid.outlook(study.grid.todo(), "measured")
        said = f"{images:,} images{_too_many(subject, images)}{outlook and ', ' + outlook}"
        return Part(len(costs), float(sum(costs)) * images, said)
    a = subject.architecture(asked.weights)
    there = list(cells(asked.study, a.config.depth if a else 1))
    of_one = float(sum(cell_cost(a, c.mode, c.ordering, c.width)[1] for c in there)) if a else None
    why = "" if a else ", operations known once its weights are here"
    each = f"{of_one / 1e12:,.2f} TFLOP an image, " if of_one is not None else ""
    said = f"{images:,} images{_too_many(subject, images)}" if images else f"{each}images known once the set is here"
    return Part(len(there), of_one * images if of_one is not None and images else None, said + why)


def _too_many(subject: Subject, images: int) -> str:
    """A warning for more images than fit into the memory of this machine, where a study holds those of a data set, as
    float32; else empty.
    """
    size = subject.given.image_size or subject.size
    needed = images * size**2 * len(subject.bands) * 4
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed <= there:
        return ""
    return (
        f" of {size} pixels, which do not fit into memory: {needed / 1e9:,.1f} GB of {there / 1e9:,.1f} GB; take a "
        "larger machine, or --limit for a trial"
    )


def plan(asked: Asked, paper: Paper, chosen: Sequence[Subject], datasets: Sequence[str], rate: float) -> Iterator[str]:
    """The plan, line by line; `rate`: operations per second of this device."""
    hub, total, encoders, unknown = Hub(), 0.0, 0, False
    yield f"{paper.name}: {paper.title}"
    for subject in chosen:
        yield f"{subject.name}: {weights_of(subject, asked.weights, hub)}; licence {subject.weights.licence}"
        for dataset in datasets:
            try:
                part = part_of(asked, paper, subject, dataset, hub)
            except UserError as e:
                yield f"  {dataset:<14} left out: {e}"
                continue
            encoders += part.encoders
            total, unknown = total + (part.operations or 0), unknown or part.operations is None
            work = "" if part.operations is None else _work(part.operations, rate)
            yield f"  {dataset:<14} {part.encoders} encoders to measure, {part.said}{work}"
    for dataset in datasets if in_hub(asked.data) else ():
        said = hub.said(f"{asked.data.rstrip('/')}/{dataset}")
        yield f"{dataset}: {said}; licence: see its page"
    for line in paper.absent:
        yield f"not computed: {line}"
    yield f"not said by the paper: {paper.unknown}"
    yield (
        f"together {encoders:,} encoders, {hub.size / 1e6:,.1f} MB to download{_work(total, rate) if total else ''}"
        + ", and what is not known yet" * unknown
    )


def _work(operations: float, rate: float) -> str:
    return f", {operations / 1e12:,.2f} TFLOP, {operations / rate / 60:,.1f} minutes"
