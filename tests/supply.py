"""The pinned dependencies: complete for every Python, with their licences, and compared with lists of vulnerabilities.

python -m tests.supply licences          # the table of docs/licences.md, from what is installed
python -m tests.supply resolve           # every Python's environment, by pip, with hashes; needs the network
python -m tests.supply audit FILE.zip    # without the network: FILE is OSV's export of all advisories for PyPI
"""

import argparse
import dataclasses
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parents[1]
FILES = ("requirements.txt", "tpu/requirements.txt", "requirements-dev.txt")  # each holds its own whole environment
TOOLS = "tpu/tools.txt"  # with what the workers install them
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_OF_OTHER_PYTHONS = {"nest-asyncio": "BSD-2-Clause"}  # installed only for some, perhaps not here
_LONGEST = 40  # characters of a licence's name; a longer field is its text

HEADER = """# Licences of the dependencies

Every package that the pinned requirements install on Linux, with the licence that its own metadata states:

    python -m tests.supply licences > docs/licences.md

None of them is distributed with `scaling`, which is under Apache-2.0. Weights and data sets keep their own licences.

| package | version | licence | in |
|---|---|---|---|
"""


@dataclasses.dataclass(frozen=True)
class Pin:
    """One line of a file of pinned requirements.

    Attributes:
      requirement: name, version and marker.
      hashes: SHA-256 of each of its files.
    """

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        (specifier,) = self.requirement.specifier
        return specifier.version

    def holds(self, python: str) -> bool:
        """Whether it is installed on Linux for this Python."""
        return _holds(self.requirement, python)


def pins(text: str) -> list[Pin]:
    """The requirements of a file that `uv pip compile --generate-hashes` wrote."""
    joined = re.sub(r"\\\n", " ", text)
    lines = [line for line in joined.splitlines() if line and not line.lstrip().startswith("#")]
    hashes = re.compile(r"--hash=sha256:([0-9a-f]{64})")
    return [Pin(Requirement(line.partition("--hash")[0].strip()), tuple(hashes.findall(line))) for line in lines]


def pinned(file: str) -> list[Pin]:
    """The requirements of one of FILES, or TOOLS."""
    return pins((ROOT / file).read_text())


def missing(held: Iterable[Pin], wanted: Iterable[str], python: str) -> list[str]:
    """Requirements that no pin meets, for one Python: those wanted, and those that installed packages state."""
    by_name = {pin.name: pin for pin in held if pin.holds(python)}
    queue, seen, found = [(Requirement(each), "pyproject.toml") for each in wanted], set(), []
    while queue:
        requirement, by = queue.pop()
        pin = by_name.get(canonicalize_name(requirement.name))
        if pin is None or pin.version not in requirement.specifier:
            found.append(f"{by} requires {requirement}")
        elif (key := (pin.name, frozenset(requirement.extras))) not in seen:
            seen.add(key)
            queue += [(each, pin.name) for each in _requirements(pin, requirement.extras, python)]
    return sorted(found)


def _requirements(pin: Pin, extras: Iterable[str], python: str) -> Iterator[Requirement]:
    """What an installed package requires; nothing where another version, for another Python, is installed."""
    try:
        there = importlib.metadata.distribution(pin.name)
    except importlib.metadata.PackageNotFoundError:
        return
    if Version(there.version) == Version(pin.version):
        stated = [Requirement(each) for each in there.requires or ()]
        yield from (each for each in stated if any(_holds(each, python, extra) for extra in ("", *extras)))


def _holds(requirement: Requirement, python: str, extra: str = "") -> bool:
    environment: dict[str, Any] = {
        **default_environment(),
        **{"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux", "extra": extra},
    }
    return requirement.marker is None or requirement.marker.evaluate(environment)


def licence(name: str) -> str:
    """The licence in the metadata of an installed package, in the form of SPDX where the package states one."""
    try:
        metadata = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return _OF_OTHER_PYTHONS.get(name, "")
    classifiers = [each for each in metadata.get_all("Classifier") or () if each.startswith("License :: ")]
    classified = " or ".join(each.rpartition(" :: ")[2] for each in classifiers)
    stated = (metadata.get("License") or "").strip()
    if "\n" in stated or len(stated) > _LONGEST:
        stated = "" if classified else stated.split("\n")[0].strip()
    return metadata.get("License-Expression") or stated or classified


def licences() -> str:
    """The page of licences."""
    files = {file: [pin for pin in pinned(file) if any(map(pin.holds, PYTHONS))] for file in FILES}
    first = {pin.name: (pin, file) for file in reversed(FILES) for pin in files[file]}
    rows = []
    for name, (_, file) in sorted(first.items()):
        versions = ", ".join(sorted({pin.version for pin in files[file] if pin.name == name}))
        rows.append(f"| {name} | {versions} | {licence(name)} | {file} |\n")
    return HEADER + "".join(rows)


def resolve(file: str, python: str) -> str:
    """Lets pip find a file with a pinned hash for every package of an environment. Nothing is installed.

    Pip would evaluate markers, and some versions of it `requires-python`, for the Python that it runs on: markers are
    evaluated here, and a wheel's name tells for which Python it is.

    Raises:
      RuntimeError: pip does not find one; its message.
    """
    held = [pin for pin in pinned(file) if pin.holds(python)]
    lines = [f"{pin.name}=={pin.version} {' '.join(f'--hash=sha256:{each}' for each in pin.hashes)}" for pin in held]
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text("\n".join(lines))
        line = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--disable-pip-version-check"]
        line += ["--ignore-installed", "--require-hashes", "--no-deps", f"--target={folder}", f"--requirement={wanted}"]
        line += [
            "--ignore-requires-python",
            f"--python-version={python}",
            *(f"--platform={each}" for each in PLATFORMS),
        ]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{file}, Python {python}: {done.stderr.strip().splitlines()[-1]}")
    return f"{file}, Python {python}: pip finds all {len(held)} packages"


def audit(held: Iterable[Pin], advisories: Path) -> list[str]:
    """Known vulnerabilities of pinned versions: `PACKAGE VERSION: ID summary`.

    Args:
      advisories: zip archive of JSON files in the Open Source Vulnerability format, a file for each advisory.
    """
    versions: dict[str, set[str]] = {}
    for pin in held:
        versions.setdefault(pin.name, set()).add(pin.version)
    found, read = set(), 0
    with zipfile.ZipFile(advisories) as archive:
        for entry in archive.namelist():
            advisory = json.loads(archive.read(entry))
            for affected in () if "withdrawn" in advisory else advisory.get("affected", ()):
                package = affected.get("package", {})
                if package.get("ecosystem") == "PyPI":
                    read += 1
                    name = canonicalize_name(package["name"])
                    said = f"{advisory['id']} {advisory.get('summary', '')}".strip()
                    found |= {f"{name} {v}: {said}" for v in versions.get(name, ()) if _affects(affected, Version(v))}
    if not read:
        raise ValueError(f"{advisories} has no advisory for PyPI")
    return sorted(found)


def _affects(affected: Mapping[str, Any], version: Version) -> bool:
    if any(_parsed(each) == version for each in affected.get("versions", ())):
        return True
    ranges = [each["events"] for each in affected.get("ranges", ()) if each.get("type") == "ECOSYSTEM"]
    return any(_in_range(events, version) for events in ranges)


def _in_range(events: Iterable[Mapping[str, str]], version: Version) -> bool:
    """The algorithm of the format: the newest event at or below the version decides."""
    dated = [(_parsed("0.dev0" if text == "0" else text), kind) for event in events for kind, text in event.items()]
    inside = False
    for at, kind in sorted((at, kind) for at, kind in dated if at is not None):
        if kind == "introduced" and version >= at:
            inside = True
        elif (kind == "fixed" and version >= at) or (kind == "last_affected" and version > at):
            inside = False
    return inside


def _parsed(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def main() -> int:
    """Returns 1 if something was found that should not be there."""
    parser = argparse.ArgumentParser(prog="python -m tests.supply", description=__doc__)
    parser.add_argument("what", choices=("licences", "resolve", "audit"))
    parser.add_argument("advisories", nargs="?", type=Path, help="audit: zip archive of advisories")
    given = parser.parse_args()
    if given.what == "licences":
        print(licences(), end="")
    elif given.what == "resolve":
        for file in FILES:
            for python in PYTHONS:
                print(resolve(file, python), flush=True)
    elif given.advisories is None:
        parser.error("audit needs a zip archive of advisories")
    else:
        all_pins = [pin for file in (*FILES, TOOLS) for pin in pinned(file)]
        found = audit(all_pins, given.advisories)
        print("\n".join(found) or f"none of {len({pin.name for pin in all_pins})} packages has a known vulnerability")
        return int(bool(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
