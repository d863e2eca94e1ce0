"""The hours of all slices of a run, kept in its working directory: a limit counts them whichever `run` began them."""

import datetime
import json
import re
import tempfile
import time
from pathlib import Path

from scaling.core.errors import UserError
from scaling.core.files import in_bucket
from tpu.cloud.gcloud import Gcloud, reason

FILE = "spent.json"
TRIES = 3  # to read it
EARLIER = 1  # stands for all slices that only the metadata of a later one tells of
_NONE = re.compile(r"matched no objects|no object matched|not found|404", re.IGNORECASE)


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
        command = ["gcloud", "storage", "cat", f"{self._workdir}/{FILE}"]
        for left in reversed(range(TRIES)):
            code, out, error = self._gcloud.read(command)
            if code and _NONE.search(error):
                return
            if not code:
                break
            if not left:
                why = reason(code, error)
                raise UserError(f"--workdir={self._workdir}: does not tell the hours of the run: {why}; start again")
            time.sleep(self._gcloud.poll)
        try:
            self._hours = {int(created): hours for created, hours in json.loads(out).items()}
        except (ValueError, AttributeError) as e:
            raise UserError(
                f"{self._workdir}/{FILE}: must have the hours of each slice by its creation time; mend or delete it"
            ) from e

    def total(self, but: float = 0.0) -> float:
        """Hours of all slices whose end is known, but for the one created then."""
        return sum(hours for created, hours in self._hours.items() if hours is not None and created != round(but))

    def lasts(self, created: float) -> None:
        """Notes a slice that exists."""
        if created and round(created) not in self._hours:
            self._keep(created, None)

    def lasted(self, created: float, end: float) -> None:
        """Notes a slice that existed until then."""
        self._keep(created, max(end - created, 0.0) / 3600)

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
        if (missing := noted - self.total(living or lost)) > 0.001:
            self._keep(EARLIER, missing + (self._hours.get(EARLIER) or 0.0))
        for created in sorted(ended):
            self.lasted(created, self._last_sign(created))

    def _last_sign(self, created: float) -> float:
        """When the logs of a slice last grew; now if it has none."""
        logs = f"{self._workdir}/logs"
        starts = [name for name in self._gcloud.folder(logs) if started_since(name, created)] if self._kept else []
        later = sorted(key for key in self._hours if key > created)  # slices after it have logs of their own
        starts = [name for name in starts if not (later and started_since(name, later[0]))]
        if not starts:
            return later[0] if later else time.time()
        out = self._gcloud.read(["gcloud", "storage", "ls", "--long", f"{logs}/{max(starts)}/"])[1]
        times = re.findall(r"^\s*\d+\s+(\d{4}-\S+Z)\s", out, re.MULTILINE)
        signs = [datetime.datetime.fromisoformat(each).timestamp() for each in times]
        return max(signs, default=time.time())

    def _keep(self, created: float, hours: float | None) -> None:
        self._hours[round(created)] = None if hours is None else round(hours, 4)
        if not self._kept:
            return
        with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
            file = Path(folder) / FILE
            file.write_text(json.dumps(self._hours) + "\n")
            copy = ["gcloud", "storage", "cp", str(file), f"{self._workdir}/{FILE}", "--quiet"]
            code, _, error = self._gcloud.read(copy)
        if code:
            print(f"{self._workdir}/{FILE}: the hours of the run could not be kept: {reason(code, error)}", flush=True)


def started_since(name: str, created: float) -> bool:
    """Whether the start of a job with this name, as `tpu.cloud.job` gives it, came after that time."""
    return bool(re.fullmatch(r"\d{8}-\d{6}", name)) and name >= time.strftime("%Y%m%d-%H%M%S", time.gmtime(created))
