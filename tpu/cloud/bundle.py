"""The bundle: all that setup.sh installs on a worker, in a bucket, so that workers need to reach nothing else.

`gs://BUCKET/PATH/KEY`, with a KEY for each set of pins, holds the packages of requirements.txt and tools.txt for Linux
on x86-64, Python, and, uploaded last, `manifest`: a line `SHA256 SIZE NAME` for each file.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

from scaling.core.errors import UserError
from tpu.cloud.gcloud import Gcloud, reason
from tpu.cloud.shipment import ROOT, in_folder
from tpu.cloud.worker import MIRROR

PINS = tuple(ROOT / "tpu" / name for name in ("requirements.txt", "tools.txt", "setup.sh"))
RELEASES = "https://github.com/astral-sh/python-build-standalone/releases/download"
DOWNLOAD, UPLOAD = 3600.0, 4 * 3600.0  # seconds for some 700 MB
GLIBC = 35  # 2.35, of Ubuntu 22.04
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC, 4, -1)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"),
)


def place(root: str) -> str:
    """The folder of the bundle of these pins; empty without a bundle.

    Raises:
      UserError: `root` is not in a bucket.
    """
    if root and not in_folder(root):
        raise UserError(f"--bundle={root}: give gs://BUCKET/PATH, without any of *?[]#; the workers read it there")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in PINS)).hexdigest()
    return f"{root.rstrip('/')}/{digest[:16]}" if root else ""


def check(gcloud: Gcloud, root: str) -> None:
    """Raises a UserError if the bundle of these pins is missing, or a file in it is."""
    if not (folder := place(root)):
        return
    sizes, manifest = _found(gcloud, root, folder)
    remedy = f"`python -m tpu.launch bundle --bundle={root}`"
    if gcloud.dry:
        return
    if not sizes:
        others = ", only of others" if gcloud.folder(root) else ""
        raise UserError(f"--bundle={root}: has no bundle of this commit's requirements{others}; make it with {remedy}")
    if lacks := _lacks(sizes, manifest):
        raise UserError(f"--bundle={root}: is incomplete: it lacks {lacks}; complete it with {remedy}")


def make(gcloud: Gcloud, root: str) -> None:
    """Downloads the files and uploads those that the bucket lacks, unless it has the whole bundle of these pins.

    Raises:
      UserError: no place for it; or the files cannot be had, or not be written there.
    """
    if not (folder := place(root)):
        raise UserError("--bundle: is missing; give --bundle=gs://BUCKET/PATH, where the bundle is to be")
    sizes, manifest = _found(gcloud, root, folder)
    if not (gcloud.dry or _lacks(sizes, manifest)):
        print(f"{folder} is there already")
        return
    _check_tools(gcloud.dry)
    with tempfile.TemporaryDirectory(prefix="scaling-") as temporary:
        files = _download(gcloud, Path(temporary))
        lines = [f"{_sha256(file)} {file.stat().st_size} {file.name}" for file in files]
        listed = Path(temporary) / "manifest"
        listed.write_text("".join(f"{line}\n" for line in lines))
        missing = [str(file) for file in files if sizes.get(file.name) != file.stat().st_size]
        if gcloud.dry:
            missing = [f"{temporary}/files/..."]
        if missing:
            gcloud.run(["gcloud", "storage", "cp", *missing, f"{folder}/", "--quiet"], UPLOAD)
        gcloud.run(["gcloud", "storage", "cp", str(listed), f"{folder}/manifest", "--quiet"])
        if not gcloud.dry:
            print(f"{folder}: {len(files)} files, {sum(file.stat().st_size for file in files):,} bytes")


def _found(gcloud: Gcloud, root: str, folder: str) -> tuple[dict[str, int], str]:
    """Sizes of the objects in a folder by their names, none for a missing folder; and its manifest.

    Raises:
      UserError: the bucket cannot be read.
    """
    code, out, error = gcloud.read(["gcloud", "storage", "ls", "--long", f"{folder}/"])
    if code and "matched no objects" not in error:
        raise UserError(
            f"--bundle={root}: cannot be read: {reason(code, error)}; give a bucket that exists and that you may read"
        )
    lines = re.findall(r"^ *(\d+)  \S+  gs://.*/([^/\n]+)$", out, re.MULTILINE)
    return {name: int(size) for size, name in lines}, gcloud.file(f"{folder}/manifest")


def _lacks(sizes: dict[str, int], manifest: str) -> str:
    """The first thing that a bundle lacks; empty if it is whole."""
    lines = [re.fullmatch(r"[0-9a-f]{64} (\d+) (\S+)", line) for line in manifest.splitlines() if line]
    if not lines:
        return "its manifest"
    for line in lines:
        if line is None or sizes.get(line[2]) != int(line[1]):
            return f"{line[2]}, {int(line[1]):,} bytes" if line else "a manifest that can be read"
    return ""


def _check_tools(dry: bool) -> None:
    """Raises a UserError if a program that downloads is not there: the last one is needed after 700 MB."""
    if not dry and shutil.which("curl") is None:
        raise UserError("curl: is not on PATH, and Python is downloaded with it; install it")
    if not dry and importlib.util.find_spec("pip") is None:
        raise UserError(f"{sys.executable}: has no pip, with which packages are downloaded; run it with -m ensurepip")


def _download(gcloud: Gcloud, folder: Path) -> list[Path]:
    """The files of the bundle: packages with hashes checked by pip, and Python."""
    requirements, tools, setup = (path.read_text() for path in PINS)
    pins = dict(re.findall(r"^(PYTHON\w*)=(\S+)", setup, re.MULTILINE))
    version, _, release = pins["PYTHON"].partition("+")
    wanted, files = folder / "wanted.txt", folder / "files"
    wanted.write_text(needed(requirements, version) + tools)
    minor = version.rpartition(".")[0]
    target = [f"--python-version={minor}", "--implementation=cp"]
    target += [f"--abi={abi}" for abi in (f"cp{minor.replace('.', '')}", "abi3", "none")]
    target += [f"--platform={platform}" for platform in PLATFORMS]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", *target]
    gcloud.run([*pip, f"--requirement={wanted}", f"--dest={files}"], DOWNLOAD)
    archive = files / f"cpython-{pins['PYTHON']}-x86_64-unknown-linux-gnu-install_only_stripped.tar.gz"
    url = f"{os.environ.get(MIRROR, RELEASES).rstrip('/')}/{release}/{archive.name.replace('+', '%2B')}"
    gcloud.run(["curl", "--fail", "--location", "--no-progress-meter", "--output", str(archive), url], DOWNLOAD)
    if gcloud.dry:
        return []
    if (digest := _sha256(archive)) != pins["PYTHON_SHA256"]:
        raise UserError(
            f"{url}: has the SHA-256 {digest}, and setup.sh wants {pins['PYTHON_SHA256']}; look whence it comes"
        )
    return sorted(files.iterdir())


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def needed(requirements: str, version: str) -> str:
    """The pinned requirements that a worker with this version of Python has, without markers: pip evaluates those for
    the machine it runs on.
    """
    target = {
        "python_version": version.rpartition(".")[0], "python_full_version": version, "sys_platform": "linux",
        "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix", "implementation_name": "cpython",
        "implementation_version": version, "platform_python_implementation": "CPython",
    }  # fmt: skip
    lines = []
    for line in requirements.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            name, *hashes = line.split("--hash=")
            requirement = Requirement(name.strip())
            if requirement.marker is None or requirement.marker.evaluate(target):
                pin = f"{requirement.name}{requirement.specifier}"
                lines.append(" ".join([pin, *(f"--hash={each.strip()}" for each in hashes)]))
    return "".join(f"{line}\n" for line in lines)
