"""Scores detections from files of any program: `Task1_<class>.txt` against `labelTxt/<image>.txt`. Also writes such
files, and the archive for DOTA's server.
"""

import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.data.box_classes import DIOR_CLASSES, DOTA_CLASSES, unknown_class
from scaling.data.dota_text import Found, Objects, parse_detections, parse_objects
from scaling.data.sources.dior import parse_dior
from scaling.data.sources.tables import text_of_table
from scaling.data.tiling import merged, of_whole_images
from scaling.evaluation.detection import RULES, Detections, DetectionTotals, Truths

PREFIX = "Task1_"

# Classes that may have detections although no image of the truth shows them.
KNOWN_CLASSES = {"dota": DOTA_CLASSES["2.0"], "dior": DIOR_CLASSES, "area": DOTA_CLASSES["2.0"]}


def score_files(
    predictions: epath.PathLike,
    truth: epath.PathLike,
    rules: str = "dota",
    classes: Sequence[str] = (),
    images: epath.PathLike = "",
    merge: bool = False,
) -> DetectionTotals:
    """Reads and matches detections and truth.

    Args:
      predictions: folder of `Task1_<class>.txt`.
      truth: folder with an `<image>.txt`, or DIOR-R's `<image>.xml`, for every image; or the folder above `labelTxt`.
      rules: a name in `scaling.evaluation.detection.RULES`.
      classes: the complete list of classes; by default those of the truth and of the rules' data set.
      merge: whether detections belong to tiles, whose names give their position, and are moved and merged first.
      images: file with the names of the images to score, one per line; by default all images of the truth.

    Raises:
      UserError: a folder, file or image is missing, duplicated or unreadable; a class is unknown.
    """
    there = _truth(truth)
    names = _listed(images, there, truth) if images else sorted(there)
    found = _predictions(predictions)
    if merge:
        found = {name: (file, merged([of_whole_images(of, str(file))])) for name, (file, of) in found.items()}
    occur = {name: f"--truth={truth}: {image}.txt" for image in names for name in there[image].names}
    known = set(classes) or {*occur, *KNOWN_CLASSES[rules]}
    for name, where in ({name: str(file) for name, (file, _) in found.items()} | occur).items():
        if name not in known:
            raise UserError(unknown_class(where, name, sorted(known)))
    number = {name: i for i, name in enumerate(names)}
    detections = {name: _numbered(file, of, number, there, f"--truth={truth}") for name, (file, of) in found.items()}
    return DetectionTotals(detections, _truths([there[name] for name in names]), len(names), RULES[rules])


def _truth(folder: epath.PathLike) -> dict[str, Objects]:
    files = _files("truth", folder, (".txt", ".xml"), "labelTxt")
    if not files:
        raise UserError(f"--truth={folder}: no <image>.txt or .xml there; every image needs one, even if it is empty")
    there: dict[str, Objects] = {}
    for file in files:
        if file.stem in there:
            raise UserError(
                f"--truth={folder}: image {file.stem} occurs twice, the second time in {file.name}; keep one"
            )
        parse = parse_dior if file.suffix.lower() == ".xml" else parse_objects
        there[file.stem] = parse(_read(file), str(file))
    return there


def _predictions(folder: epath.PathLike) -> dict[str, tuple[epath.Path, Found]]:
    files = [file for file in _files("predictions", folder, (".txt",)) if file.name.startswith(PREFIX)]
    if not files:
        raise UserError(
            f"--predictions={folder}: no {PREFIX}<class>.txt there; write one for every class, even if it is empty"
        )
    return {file.stem.removeprefix(PREFIX): (file, parse_detections(_read(file), str(file))) for file in files}


def _files(flag: str, folder: epath.PathLike, endings: tuple[str, ...], inner: str = "") -> list[epath.Path]:
    """Files with these endings in a folder, or in its subfolder `inner` if it has none itself."""
    root = epath.Path(folder)
    if not root.is_dir():
        raise UserError(f"--{flag}={folder}: no such folder; give one that exists")
    files = [file for file in root.iterdir() if file.name.lower().endswith(endings) and file.name[0] != "."]
    if not files and inner and (root / inner).is_dir():
        return _files(flag, root / inner, endings)
    return sorted(files, key=str)


def _read(file: epath.Path) -> str:
    try:
        return text_of_table(file.read_bytes())
    except OSError as e:
        raise UserError(f"{file}: cannot be read ({e.strerror or e}); make it readable") from e


def _listed(file: epath.PathLike, there: Mapping[str, Objects], truth: epath.PathLike) -> list[str]:
    path = epath.Path(file)
    if not path.is_file():
        raise UserError(f"--images={file}: no such file; give one that exists")
    names = _read(path).split()
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise UserError(f"--images={file}: {twice} is listed twice; keep one")
    if not names:
        raise UserError(f"--images={file}: it has no names; write one per line")
    if missing := [name for name in names if name not in there]:
        raise UserError(
            f"--images={file}: {len(missing)} of {len(names)} images are not in --truth={truth}, first {missing[0]}"
        )
    return names


def _numbered(
    file: epath.Path, found: Found, number: Mapping[str, int], there: Mapping[str, Objects], truth: str
) -> Detections:
    """Detections with image indices, for the images that count; other images of the truth are left out."""
    if foreign := sorted({name for name in found.images if name not in there}):
        tile = "; these are tiles: give --merge" if "__" in foreign[0] else ""
        raise UserError(f"{file}: {len(foreign)} of its images are not in {truth}, first {foreign[0]}{tile}")
    keep = np.array([name in number for name in found.images], bool)
    images = [number[name] for name in found.images if name in number]
    return Detections.of(images, found.scores[keep], found.corners[keep])


def _truths(objects: Sequence[Objects]) -> dict[str, Truths]:
    if not objects:
        return {}
    image = np.repeat(np.arange(len(objects)), [len(of.names) for of in objects])
    names = np.array([name for of in objects for name in of.names])
    difficult, corners = (np.concatenate([of[i] for of in objects]) for i in (2, 0))
    masks = {str(name): names == name for name in np.unique(names)}
    return {name: Truths.of(image[of], difficult[of], corners[of]) for name, of in masks.items()}


def task1_text(found: Found) -> str:
    """The text of a class's detections: scores to ten decimals, which keeps their order, and corners to four."""
    lines = (
        f"{image} {score:.10f} {' '.join(f'{value:.4f}' for value in corners.ravel())}\n"
        for image, score, corners in zip(found.images, found.scores, found.corners, strict=True)
    )
    return "".join(lines)


def write_task1(folder: epath.PathLike, found: Mapping[str, Found]) -> None:
    """Writes `Task1_<class>.txt` for every class, including classes without detections."""
    epath.Path(folder).mkdir(parents=True, exist_ok=True)
    for name, of in found.items():
        write_whole(epath.Path(folder) / f"{PREFIX}{name}.txt", task1_text(of))


def write_server_zip(file: epath.PathLike, found: Mapping[str, Found]) -> None:
    """Writes and checks the archive for DOTA's server: text files at its root, none of them empty.

    Raises:
      UserError: no detections at all, or files that the server would refuse, such as detections of tiles.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, of in found.items():
            if len(of.scores):
                archive.writestr(f"{PREFIX}{name}.txt", task1_text(of))
    if problems := zip_problems(buffer.getvalue(), found.keys()):
        raise UserError(f"{file}: the server would refuse it: {problems[0]}")
    write_whole(file, buffer.getvalue())


def zip_problems(data: bytes, classes: Iterable[str]) -> list[str]:
    """Reasons why DOTA's server would refuse or misread an archive; empty if there are none."""
    problems, known = [], set(classes)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if not archive.namelist():
            return ["there is no detection"]
        for entry in archive.namelist():
            name = entry.removeprefix(PREFIX).removesuffix(".txt")
            if entry != f"{PREFIX}{name}.txt" or "/" in entry or name not in known:
                problems.append(f"{entry} is not {PREFIX}<class>.txt at its root")
                continue
            try:
                found = parse_detections(archive.read(entry).decode("utf-8"), entry)
            except UserError as e:
                problems.append(str(e))
                continue
            if not found.images:
                problems.append(f"{entry} is empty")
            elif tiles := [image for image in found.images if "__" in image]:
                problems.append(f"{entry} has detections of tiles, first {tiles[0]}; merge them")
    return problems
