"""Errors of the libraries behind gs:// paths, which share no common type, as errors that a user reads.

gcsfs, which reads and writes everything but arrays and records, tries a request six times, half a minute in all, before
it raises.
"""

import json
import traceback
from collections.abc import Sequence
from types import FrameType

from etils import epath

from scaling.core.errors import TemporaryError, TrainingError, UserError, first_line
from scaling.core.files import in_bucket

_PACKAGES = ("aiohttp.", "gcsfs.", "google.api_core.", "google.auth.", "google.cloud.", "requests.")
_REFUSED = (400, 401, 403)  # codes of HTTP after which the same request would be refused again
_REFUSALS = ("Forbidden: ", "Bad Request: ")  # how gcsfs begins the OSError of 403, and the ValueError of some 400


def of_bucket(error: BaseException) -> bool:
    """Whether an error is of a library that speaks to buckets."""
    return f"{type(error).__module__}.".startswith(_PACKAGES)


def bucket_error(error: BaseException) -> UserError | None:
    """The error to report for a request to a bucket that was not answered, with the path that was asked for; None for
    any other exception.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    path, said = _path(frames), first_line(error)
    if not (path or type(error).__module__ == "gcsfs.retry" or any(map(_speaks_to_buckets, frames))):
        return None  # others use these libraries too
    refused = said.startswith(_REFUSALS) or getattr(error, "code", None) in _REFUSED or _without_credentials(error)
    late_or_cut = isinstance(error, TimeoutError | json.JSONDecodeError)
    if not (of_bucket(error) or said.startswith(_REFUSALS) or late_or_cut):
        return None
    where = path or "the bucket"
    if refused:
        why = " ".join(str(error).split())
        return TrainingError(f"{where}: is refused by its server ({why}); get permission there, and start again")
    return TemporaryError(f"{where}: its server does not respond ({said}); start the same command again")


def _speaks_to_buckets(frame: FrameType) -> bool:
    return f"{frame.f_globals.get('__name__')}.".startswith(("gcsfs.", "google.cloud."))


def _without_credentials(error: BaseException) -> bool:
    """Whether credentials are missing or have expired, as opposed to a connection that failed."""
    names = {each.__name__ for each in type(error).__mro__ if each.__module__ == "google.auth.exceptions"}
    return bool(names) and "TransportError" not in names


def _path(frames: Sequence[FrameType]) -> str:
    """The path in a bucket whose method raised: the errors do not name it."""
    owners = (frame.f_locals.get("self") for frame in reversed(frames))
    return next((str(owner) for owner in owners if isinstance(owner, epath.Path) and in_bucket(owner)), "")
