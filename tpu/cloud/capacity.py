"""Requests a slice, and requests it again after a loss: over zones and kinds of capacity, with pauses in between."""

import dataclasses
import time
from collections.abc import Sequence

from scaling.core.errors import UserError
from tpu.cloud.found import FAILED, LEAVING, MISSING, READY, WAITING, Found
from tpu.cloud.gcloud import Gcloud, say
from tpu.cloud.job import PATIENCE, Job
from tpu.cloud.slices import SliceRequest

PAUSE, LONGEST_PAUSE = 60.0, 1800.0  # seconds before all places without capacity are asked again


def places(first: SliceRequest, zones: Sequence[str], on_demand: bool) -> tuple[SliceRequest, ...]:
    """Places to ask, in order: every zone and then, if allowed, every zone on demand."""
    kinds = [first.spot, False] if on_demand and first.spot else [first.spot]
    return tuple(
        dataclasses.replace(first, zone=zone, spot=spot)
        for spot in kinds
        for zone in dict.fromkeys([first.zone, *zones])
    )


def with_project(gcloud: Gcloud, places: Sequence[SliceRequest]) -> tuple[SliceRequest, ...]:
    """The places in the project that gcloud uses here: on worker 0, which deletes the slice, it may use another."""
    if gcloud.dry or places[0].project:
        return tuple(places)
    project = gcloud.read(["gcloud", "config", "get-value", "project"])[1].strip()
    return tuple(dataclasses.replace(each, project="" if project == "(unset)" else project) for each in places)


@dataclasses.dataclass
class Capacity:
    """Requests the slice of a job.

    Args:
      job: the job, whose target is the place that has its slice or is being asked.
      places: see `places`.
      wait_minutes: minutes that a request waits in a queue before the next place, if any, is asked.
      pause: seconds before all places are asked again.
    """

    job: Job
    places: tuple[SliceRequest, ...]
    wait_minutes: float = 30.0
    pause: float = PAUSE
    requested: bool = False  # whether the newest request is its own, and not of another `run`
    _refused: int = 0

    def find(self) -> Found:
        """The state of the slice in the first place that has one, which becomes the job's target."""
        for zone in dict.fromkeys(place.zone for place in self.places):
            here = next(place for place in self.places if place.zone == zone)
            found = self.job.gcloud.look(here)
            if found.state != MISSING:
                same = (place for place in self.places if place.zone == zone and place.spot == found.spot)
                self.job.target = next(same, here)
                return found
        return Found(MISSING)

    def granted(self, create: bool) -> Found:
        """Returns once the slice is granted; requests it if it was preempted, has to be replaced or, with `create`,
        does not exist. Without `create`, a missing slice is returned as such.

        Raises:
          UserError: a request failed for a reason other than capacity.
        """
        job, looks, failures = self.job, 0, 0
        while True:
            found = self._wait()
            if job.broken and found.state == READY and job.is_another(job.gcloud.node(job.target, patient=True)):
                job.broken = ""  # another `run` has replaced it
            bad = job.broken and found.state == READY
            if found.state == READY and not bad:
                self._refused = 0
                return found
            if found.state == MISSING and self._moved():
                continue
            if found.final:
                raise UserError(f"--name={job.target.name}: is {found}; mend that, then `delete` and `run`")
            if found.state == MISSING and not create:
                looks += 1  # another `run` may be between deleting and creating it
                if looks == 3:
                    return found
                time.sleep(job.gcloud.poll)
                continue
            create = True
            try:
                self._step(found)
                failures = 0
            except UserError as e:
                # gcloud may report a failure of what it has done, and another `run` may do the same: look again
                failures += 1
                if failures > PATIENCE:
                    raise
                say(f"{e}; trying again")
                time.sleep(job.gcloud.poll)

    def _moved(self) -> bool:
        """Whether another `run` has requested the slice in another zone, which becomes that of the job's target."""
        job, here = self.job, self.job.target
        if job.gcloud.dry or len({place.zone for place in self.places}) == 1:
            return False
        moved = self.find().state in (READY, *WAITING)
        job.target = dataclasses.replace(job.target, about=here.about) if moved else here
        return moved

    def _wait(self) -> Found:
        """The queued resource, once it is neither waiting nor being removed, or has waited too long."""
        patience = 60 * self.wait_minutes if len(self.places) > 1 else None
        return self.job.gcloud.wait(self.job.target, (*WAITING, *LEAVING), patience)

    def _step(self, found: Found) -> None:
        """Deletes a resource that is of no use, or requests a new one."""
        job = self.job
        if found.state == MISSING:
            self.requested = False
            job.gcloud.run(job.target.create())
            self.requested = True
            return
        why = job.broken if found.state == READY else str(found)
        say(f"{job.target.name} is {why}: creating it again")
        job.gcloud.run(job.target.delete())
        job.broken = ""
        if found.state == FAILED or found.state in WAITING:
            self._next()

    def _next(self) -> None:
        """Moves on to the next place; after the last to the first, with increasing pauses."""
        self._refused += 1
        at = self._refused % len(self.places)
        self.job.target = dataclasses.replace(self.places[at], about=self.job.target.about)
        if at == 0:
            pause = min(self.pause * 2 ** (self._refused // len(self.places) - 1), LONGEST_PAUSE)
            say(f"there is no capacity; asking again in {pause / 60:.0f} minutes")
            time.sleep(pause)
