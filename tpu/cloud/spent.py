"""The hours of all slices of a run, kept in its working directory: a limit counts them whichever `run` began them."""

import contextlib
import datetime
import json
import math
import re
import tempfile
import time
from pathlib import Path

from scaling.core.errors import UserError
from scaling.core.files import in_bucket
from tpu.cloud.gcloud import Gcloud, names, reason, say
from tpu.cloud.keep import LATE, SOON

FILE = "spent.json"
EARLIER = 1  # stands for all slices that only the metadata of a later one tells of
_NONE = re.compile(r"matched no objects|no object matched|not found: 404|HTTPError 404", re.IGNORECASE)


class Spent:
    """Hours of each slice of a run. A working directory on a disk keeps none: it is lost with its slice.

    `WORKDIR/spent.json` has them by the creation time of the slice in seconds since 1970; null while it may exist.
    """

    def __init__(self, gcloud: Gcloud, workdir: str):
        self._gcloud, self._workdir = gcloud, workdir
        self._kept = in_bucket(workdir) and not gcloud.dry
        self._hours: dict[int, float | None] = {}

    def read(self) -> None:
        """Reads the file.

        Raises:
          UserError: it cannot be read: without it a limit would count from nothing.
        """
        if not self._kept:
            return
        out = self._read("cat", f"{self._workdir}/{FILE}")
        if out is None:
            return
        try:
            found = json.loads(out)
            hours = {int(at): None if each is None else float(each) for at, each in found.items()}
            if not all(0 <= each < math.inf for each in hours.values() if each is not None):
                raise ValueError(found)
            self._hours = hours
        except (ValueError, AttributeError, TypeError) as e:
            raise UserError(
                f"{self._workdir}/{FILE}: must have the hours of each slice by its creation time; mend or delete it"
            ) from e

    def _read(self, *arguments: str) -> str | None:
        """What `gcloud storage` prints; None if there is no such object.

        Raises:
          UserError: the bucket does not answer, or refuses.
        """
        command = ["gcloud", "storage", *arguments]
        code, out, error = self._gcloud.ask(command, lambda code, _, error: not code or bool(_NONE.search(error)))
        if not code:
            return out
        if _NONE.search(error):
            return None
        why = reason(code, error)
        raise UserError(f"--workdir={self._workdir}: does not tell the hours of the run: {why}; start again")

    def total(self, but: float = 0.0) -> float:
        """Hours of all slices whose end is known, but for the one created then."""
        return sum(hours for created, hours in self._hours.items() if hours is not None and created != round(but))

    def lasts(self, created: float) -> None:
        """Notes a slice that exists: it has no hours yet, whatever was noted when its deletion began."""
        if created and self._hours.get(round(created), 0.0) is not None:
            self._keep(created, None)

    def lasted(self, created: float, end: float) -> None:
        """Notes a slice that existed until then."""
        self._keep(created, max(end - created, 0.0) / 3600)

    def deleted(self, created: float, lived: bool) -> None:
        """Notes a slice that was deleted now; `lived`: whether until then. For UserError see `last_sign`."""
        if lived:
            self.lasted(created, time.time())
        else:
            self.lost(created)

    def lost(self, created: float, seen: float = 0.0) -> None:
        """Notes a slice that ended while nobody was looking, after it was last `seen`, unless another `run` has. For
        UserError see `last_sign`.
        """
        self.read()
        if self._hours.get(round(created)) is None:
            self.lasted(created, max(self.last_sign(created), seen))

    def settle(self, living: float, lost: float, noted: float) -> None:
        """Ends all slices that ended while no `run` was looking, with their last sign of life.

        Args:
          living: creation time of the slice that exists; 0 if there is none.
          lost: creation time of one that was preempted; 0 if there is none.
          noted: hours of all slices before these, by the metadata of either.
        """
        ended = {created for created, hours in self._hours.items() if hours is None and created != round(living)}
        if lost and self._hours.get(round(lost)) is None:
            ended.add(round(lost))
        if noted > 0.001 and not self._hours:  # else the file has had them, mended or not
            self._keep(EARLIER, noted)
        for created in sorted(ended):
            self.lasted(created, self.last_sign(created))

    def starts(self, created: float) -> list[str]:
        """Names of the starts of jobs on a slice or on later ones, as `tpu.cloud.job` gives them. For UserError see
        `last_sign`.
        """
        found = self._read("ls", f"{self._workdir}/logs/") if self._kept else None
        return [name for name in names(found or "") if started_since(name, created)]

    def last_sign(self, created: float) -> float:
        """When a slice last gave a sign of life in its logs, and as long after the end of its job as worker 0 may wait
        until the next, or until it deletes the slice; without any, when the next slice was created, and else now.

        Raises:
          UserError: the bucket does not tell.
        """
        later = sorted(key for key in self._hours if key > round(created))  # slices after it have logs of their own
        starts = [name for name in self.starts(created) if not (later and started_since(name, later[0]))]
        out = (starts and self._read("ls", "--long", f"{self._workdir}/logs/{max(starts)}/")) or ""
        times = re.findall(r"^\s*\d+\s+(\d{4}-\S+Z)\s", out, re.MULTILINE)
        ended, waited = (re.search(rf"/0\.{name}$", out, re.MULTILINE) for name in ("result", "kept"))
        waits = SOON if waited else LATE if ended else 0.0
        end = later[0] if later else time.time()
        if signs := [datetime.datetime.fromisoformat(each).timestamp() for each in times]:
            return min(max(signs) + waits, end)
        if self._kept:
            since, hours = time.strftime("%Y-%m-%d %H:%M", time.gmtime(created)), (end - created) / 3600
            say(
                f"nothing tells when the slice created at {since} UTC was deleted: {hours:.1f} hours are counted for "
                f"it; {self._workdir}/{FILE} has them by seconds since 1970, and can be mended there"
            )
        return end

    def _keep(self, created: float, hours: float | None) -> None:
        mine = self._hours
        with contextlib.suppress(UserError):
            self.read()  # mended, or noted by another `run`, since
        theirs = {at: x for at, x in self._hours.items() if x is not None or at not in mine}
        self._hours = {**mine, **theirs, round(created): None if hours is None else round(hours, 4)}
        if not self._kept:
            return
        with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
            file = Path(folder) / FILE
            file.write_text(json.dumps(self._hours) + "\n")
            copy = ["gcloud", "storage", "cp", str(file), f"{self._workdir}/{FILE}", "--quiet"]
            code, _, error = self._gcloud.read(copy)
        if code:
            say(f"{self._workdir}/{FILE}: the hours of the run could not be kept: {reason(code, error)}")


def started_since(name: str, created: float) -> bool:
    """Whether the start of a job with this name, as `tpu.cloud.job` gives it, came after that time."""
    return bool(re.fullmatch(r"\d{8}-\d{6}", name)) and name >= time.strftime("%Y%m%d-%H%M%S", time.gmtime(created))
