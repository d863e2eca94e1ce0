"""Files of the Hugging Face hub by their address, hf://[datasets/]ORG/REPO[@REVISION]/PATH, through its own client.

Cache, token and mirror are the client's: $HF_HOME, $HF_TOKEN or `hf auth login`, $HF_ENDPOINT. An interrupted download
is resumed by the same command. A downloaded file whose checksum is not the one that the hub lists is removed.
Nothing is uploaded.
"""

import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from scaling.core.errors import TemporaryError, UserError, first_line
from scaling.core.files import parse_json

SCHEME = "hf://"
_ADDRESS = re.compile(
    r"hf://(?P<kind>datasets/)?(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.+?))?/?"
)
_BESIDE = ("config.json", "preprocessor_config.json")  # files fetched together with a file of weights
_WEIGHTS = (".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".index.json")
_SHA256, _GIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")  # how the hub lists large and small files
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Address:
    """A file or a folder in the hub.

    Attributes:
      text: the address as written.
      repo: repository, ORG/REPO.
      kind: `model` or `dataset`.
      revision: branch, tag or commit; empty for the newest.
      path: path in the repository; empty for the whole repository.
    """

    text: str
    repo: str
    kind: str
    revision: str
    path: str


def in_hub(path: object) -> bool:
    """Whether a path is an address in the hub."""
    return str(path).startswith(SCHEME)


def address(text: str) -> Address:
    """The parsed address. Raises UserError for text that is not hf://[datasets/]ORG/REPO[@REVISION][/PATH]."""
    if not (found := _ADDRESS.fullmatch(text)):
        raise UserError(f"{text}: must be hf://ORG/REPO[@REVISION]/PATH, or hf://datasets/ORG/REPO…")
    kind = "dataset" if found["kind"] else "model"
    return Address(text, found["repo"], kind, found["revision"] or "", found["path"] or "")


def fetch(text: str) -> Path:
    """Local path of a file or folder, downloaded if not cached. The configuration files beside a file of weights are
    fetched too, and so are the files that an index of weights lists.

    Raises:
      UserError: no such address, no permission, or a file that is not what the hub lists; ImportError without the
        extra [hub].
      TemporaryError: the hub does not respond, or the connection was lost.
    """
    at = address(text)
    if not at.path:
        return _folder(at)
    file = _asked(at, lambda: _file(at, at.path))
    if file is None:
        return _folder(at)
    if file.name.endswith(_WEIGHTS):
        folder = at.path.rpartition("/")[0]
        beside = [f"{folder}/{name}".lstrip("/") for name in (*_BESIDE, *_parts(file))]
        for path in beside:
            found = _asked(at, functools.partial(_file, at, path))
            if found is None and path.rpartition("/")[2] not in _BESIDE:
                raise UserError(f"{text}: its index names {path}, which is not in {at.repo}")
    return file


@dataclasses.dataclass(frozen=True)
class Download:
    """A file that `fetch` would download.

    Attributes:
      path: path in the repository.
      size: bytes; None if the hub does not report them.
      here: whether it is in the cache already.
    """

    path: str
    size: int | None
    here: bool


def downloads(text: str) -> list[Download]:
    """The files that `fetch` would download for an address (for a file of weights, only that file). Downloads nothing.

    Raises:
      UserError, TemporaryError: as `fetch`.
    """
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    at = address(text)
    where: dict[str, Any] = {"repo_type": at.kind, "revision": at.revision or None}
    endpoint = os.environ.get("HF_ENDPOINT") or None

    def is_here(path: str) -> bool:
        return isinstance(try_to_load_from_cache(at.repo, path, **where), str)

    if at.path and is_here(at.path):
        return [Download(at.path, None, True)]
    url = hf_hub_url(at.repo, at.path, endpoint=endpoint, **where)
    if at.path and (one := _asked(at, lambda: get_hf_file_metadata(url, endpoint=endpoint))):
        return [Download(at.path, one.size, False)]
    tree = functools.partial(HfApi(endpoint).list_repo_tree, at.repo, at.path or None, recursive=True, **where)
    files = [item for item in _asked(at, lambda: list(tree())) or () if hasattr(item, "size")]
    if not files:
        raise _absent(at)
    return [Download(file.path, file.size, is_here(file.path)) for file in files]


def _absent(at: Address) -> UserError:
    return UserError(f"{at.text}: there is no file or folder {at.path or '/'} in {at.repo}; look at its files")


def _parts(file: Path) -> list[str]:
    """The files that an index of several files of weights names."""
    if not file.name.endswith(".index.json"):
        return []
    try:
        names = parse_json(file.read_text())["weight_map"].values()
    except (ValueError, KeyError, AttributeError) as e:
        raise UserError(f"{file}: not an index of files of weights") from e
    return sorted({str(name) for name in names})


def _options(at: Address) -> dict[str, Any]:
    endpoint = os.environ.get("HF_ENDPOINT") or None
    return {"repo_id": at.repo, "repo_type": at.kind, "revision": at.revision or None, "endpoint": endpoint}


def _file(at: Address, path: str) -> Path:
    from huggingface_hub import hf_hub_download

    return _checked(at, Path(hf_hub_download(filename=path, **_options(at))))


def _folder(at: Address) -> Path:
    from huggingface_hub import snapshot_download

    pattern = [f"{at.path}/*"] if at.path else None
    root = _asked(at, lambda: Path(snapshot_download(allow_patterns=pattern, **_options(at))))
    folder = root / at.path if root else None
    if folder is None or not folder.is_dir():
        raise _absent(at)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            _checked(at, file)
    return folder


def _checked(at: Address, file: Path) -> Path:
    """The file, after comparing its checksum with the hub's, which is its name in the cache. A pass is recorded once.

    Raises:
      UserError: the checksums differ; the file is removed.
    """
    blob = file.resolve()
    seen = blob.with_name(f"{blob.name}.checked")
    if seen.exists() or not (_SHA256.fullmatch(blob.name) or _GIT.fullmatch(blob.name)):
        return file
    digest = hashlib.sha256() if _SHA256.fullmatch(blob.name) else hashlib.sha1(b"blob %d\0" % blob.stat().st_size)
    with blob.open("rb") as opened:
        while block := opened.read(2**24):
            digest.update(block)
    if digest.hexdigest() != blob.name:
        blob.unlink()
        file.unlink(missing_ok=True)
        raise UserError(
            f"{at.text}: the downloaded file has the checksum {digest.hexdigest()[:12]}…, but the hub lists "
            f"{blob.name[:12]}…; it was deleted. Start again; if that does not help, the mirror is wrong"
        )
    seen.touch()
    return file


def _asked(at: Address, ask: Callable[[], T]) -> T | None:
    """The client's answer, or None for a path that does not exist; the client's errors become one line each."""
    from huggingface_hub import errors

    where = f"{at.text}: {at.repo}"
    try:
        return ask()
    except errors.GatedRepoError as e:
        raise UserError(f"{where} is gated: accept its terms on its page, then `hf auth login` or set HF_TOKEN") from e
    except errors.RevisionNotFoundError as e:
        raise UserError(f"{where} has no revision {at.revision}; leave @{at.revision} out for the newest") from e
    except errors.RepositoryNotFoundError as e:
        raise UserError(
            f"{where} does not exist, or is private: check the name, or `hf auth login` or set HF_TOKEN"
        ) from e
    except errors.LocalEntryNotFoundError as e:
        raise TemporaryError(f"{where}: the hub does not answer ({first_line(e.__cause__ or e)}); start again") from e
    except errors.EntryNotFoundError:
        return None
    except errors.HFValidationError as e:
        raise UserError(f"{at.text}: {first_line(e)}") from e
    except (errors.HfHubHTTPError, errors.HTTPError, OSError) as e:
        code = getattr(getattr(e, "response", None), "status_code", None)
        if code in (401, 403):
            raise UserError(f"{where} may not be read with this token; `hf auth login` or set HF_TOKEN") from e
        raise TemporaryError(f"{where}: the download broke off ({first_line(e)}); start again to resume it") from e
