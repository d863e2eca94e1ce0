"""The shipment to the workers: the code of one commit, and the training command that runs in it."""

import contextlib
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from scaling.core.config import config_of
from scaling.core.errors import UserError
from scaling.core.files import in_bucket
from scaling.data.sources.registry import SCHEMES
from scaling.data.staging import check_stage
from scaling.parallel.mesh import check_batch, mesh_shape
from scaling.training.config import TrainConfig
from tpu.cloud.gcloud import MUCH, Gcloud, reason
from tpu.cloud.worker import SENT, Source

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "tpu" / "requirements.txt"
NOT_SHIPPED = ("results", "tests", "docs")  # five of six megabytes, for each worker and each slice
BUCKET = re.compile(r"gs://[a-z0-9][-._a-z0-9]{1,61}[a-z0-9](/.*)?")


def in_folder(path: str) -> bool:
    """Whether a path is gs://BUCKET/PATH, without the wildcards of gcloud."""
    return bool(BUCKET.fullmatch(path)) and bool(path[5:].partition("/")[2].strip("/")) and not set("*?[]#") & set(path)


@contextlib.contextmanager
def archive(allow_dirty: bool) -> Iterator[tuple[Path, str, str]]:
    """The tree of the current commit as a .tgz file that exists within the context; also that tree, and its name.
    Folders that no worker needs are left out.

    With `allow_dirty` it is the working tree, with untracked but without ignored files. A run keeps its archive: after
    a preemption it resumes with the code it began with.

    Raises:
      UserError: not a git checkout, or one with uncommitted changes.
    """
    changes = _git("status", "--porcelain").splitlines()
    if changes and not allow_dirty:
        raise UserError(
            f"--allow_dirty=False: {len(changes)} files are not committed, {changes[0][3:]} for one; commit them, so "
            "that the run can be repeated, or give --allow_dirty to ship them as they are"
        )
    with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
        path, tree, commit = Path(folder) / "scaling.tgz", "HEAD", _git("rev-parse", "--short", "HEAD")
        name = commit
        if changes:
            index = {"GIT_INDEX_FILE": f"{folder}/index"}
            _git("add", "--all", environment=index)
            tree = _git("write-tree", environment=index)
            name = f"{commit}+{tree[:12]}"
        _git("archive", "--format=tar.gz", f"--output={path}", tree, ".", *(f":(exclude){x}" for x in NOT_SHIPPED))
        print(f"ships {commit}{' with uncommitted changes' if changes else ''}", flush=True)
        yield path, tree, name


def stored(gcloud: Gcloud, path: Path, name: str, workdir: str) -> Source:
    """Uploads an archive to the working directory, unless it is there; on a disk, the archive is sent to the workers.

    Raises:
      UserError: the bucket does not take it.
    """
    if not in_bucket(workdir):
        return SENT
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source = Source(f"{workdir.rstrip('/')}/code/{name}-{digest[:12]}.tgz", digest)
    copy = ["gcloud", "storage", "cp", str(path), source.code, "--no-clobber", "--quiet"]
    code, _, error = gcloud.read(copy, limit=MUCH)
    if code:
        raise UserError(
            f"--workdir={workdir}: does not take the code: {reason(code, error)}; "
            "give a bucket that exists and that you may write to (Storage Object Admin)"
        )
    return source


def _git(*arguments: str, environment: dict[str, str] | None = None) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    except FileNotFoundError as e:
        raise UserError("git: is not installed, and the workers are sent the code of a commit; install it") from e
    if "not a git repository" in done.stderr:
        raise UserError(f"{ROOT}: is not a git checkout, and the workers are sent the code of a commit; clone it")
    if done.returncode:
        raise UserError(
            f"git {arguments[0]}: failed: {(done.stderr.strip().splitlines() or [''])[0]}; mend that, and start again"
        )
    return done.stdout.rstrip("\n")


def shipped_path(config: str, tree: str) -> str:
    """Path of a config file inside the shipped tree.

    Raises:
      UserError: it is not in the tree.
    """
    try:
        path = Path(config).resolve().relative_to(ROOT).as_posix()
        _git("cat-file", "-e", f"{tree}:{path}")
        if path.startswith(tuple(f"{folder}/" for folder in NOT_SHIPPED)):
            raise ValueError(path)
    except (ValueError, UserError) as e:
        raise UserError(
            f"--config={config}: is not part of the shipped code; put it into configs/ and commit it"
        ) from e
    return path


def check(
    values: TrainConfig, devices: int, workdir: str, keeps_disks: bool, named: Collection[str], local_data: bool = False
) -> None:
    """Raises a UserError if training on a pod would not start, not find its data or lose its working directory.

    Args:
      values: the configuration with its overrides.
      devices: number of JAX devices.
      workdir: the working directory.
      keeps_disks: whether the slice is one host on demand, whose disks last as long as the slice.
      named: fields given on the command line.
      local_data: whether data may be in a folder that every worker has.
    """
    values.check()
    check_batch(values.batch_size, mesh_shape(values.mesh, devices), values.accumulate)
    if not (keeps_disks and workdir.startswith("/")):
        check_workdir(workdir)
    if values.wandb and not re.search(r"^wandb==", REQUIREMENTS.read_text(), re.MULTILINE):
        raise UserError(
            f"wandb={values.wandb}: tpu/requirements.txt, which the workers install, does not have wandb; add --extra "
            "wandb to the command at its top, run that and commit it, or give --config.wandb="
        )
    if values.data.stage and not values.data.stage.startswith("/"):
        raise UserError(f"data.stage={values.data.stage}: must be a folder of the workers; give /dev/shm/data")
    if not values.data.source:
        raise UserError("data.source=: is empty; give --config.data.source=arrayrecord:gs://BUCKET/PATH")
    for field in ("source", "eval_source"):
        spec = getattr(values.data, field)
        if not (local_data and (spec.partition(":")[2] or spec).startswith("/")):
            _check_source(field, spec, f"data.{field}" in named)
        if values.data.stage and not spec.startswith("gs://"):  # only the bucket tells of what kind such a path is
            check_stage(spec, values.data.stage)


def check_workdir(workdir: str) -> None:
    """Raises a UserError for a working directory that is not a folder of a bucket."""
    if not in_folder(workdir):
        raise UserError(
            f"--workdir={workdir or '(none)'}: give gs://BUCKET/PATH, without any of *?[]#; all hosts write "
            "there, and it outlives the slice"
        )


def _check_source(field: str, spec: str, named: bool) -> None:
    scheme, _, path = spec.partition("?")[0].partition(":")
    if wrong := [place for place in re.findall(r"gs://[^?&]*", spec) if not BUCKET.fullmatch(place)]:
        raise UserError(f"data.{field}={spec}: {wrong[0]} names no bucket; give arrayrecord:gs://BUCKET/PATH")
    if scheme == "gs":
        return
    if spec and scheme not in SCHEMES and not os.path.isdir(spec):
        known = ", ".join(SCHEMES)
        raise UserError(f"data.{field}={spec}: must start with one of {known}; give arrayrecord:gs://BUCKET/PATH")
    if scheme == "scenes":
        if not named:
            raise UserError(
                f"data.{field}={spec} are images that this program makes up; give "
                f"--config.data.{field}=arrayrecord:gs://BUCKET/PATH, or --config.data.{field}={spec} if they are meant"
            )
    elif spec and ("gs://" not in spec if scheme == "tfds" else not path.startswith("gs://")):
        raise UserError(
            f"data.{field}={spec} is not in a bucket, where the workers could read it; write it there "
            f"with python -m scaling.prepare --source={spec} --output=gs://BUCKET/PATH and give "
            f"--config.data.{field}=arrayrecord:gs://BUCKET/PATH; or --local_data where every worker has that path"
        )


def arguments(config: str, overrides: dict[str, object], **more: object) -> list[str]:
    """`-m scaling.train --config=... --config.field=value ... --flag=value ...`."""
    fields = {f"config.{name}": value for name, value in overrides.items()}
    return [
        "-m",
        "scaling.train",
        *[f"--{name}={value}" for name, value in {"config": config, **fields, **more}.items()],
    ]


def parse(values: object) -> TrainConfig:
    """The configuration of a parsed --config flag.

    Raises:
      UserError: no --config, or a value has the wrong type.
    """
    if values is None:
        raise UserError("--config: is missing; give --config=FILE")
    return config_of(TrainConfig, values)  # type: ignore[arg-type]
