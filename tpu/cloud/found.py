"""The state of a slice as reported by Cloud TPU: its queued resource, and its machines.

States: "Manage queued resources" of the Google Cloud documentation; health: `Node` of the Cloud TPU API v2.
"""

import contextlib
import dataclasses
import datetime
import re
from collections.abc import Mapping
from typing import Any

GRANTED = "PROVISIONING"  # the capacity is there, and is being prepared
WAITING = ("CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", GRANTED)
READY = "ACTIVE"
PREEMPTED = "SUSPENDED"  # a new one is obtained by deleting and creating again
FAILED = "FAILED"  # not granted; see `Found.final`
LEAVING = ("SUSPENDING", "DELETING")
MISSING = "MISSING"  # our own state: no resource of that name
WELL = ("", "HEALTHY", "HEALTH_UNSPECIFIED")  # health of a node that works, or is unknown
OURS = "scaling-"  # prefix of the metadata that the launcher gives a slice

_FINAL = re.compile(r"quota|permission|denied|invalid|not found|not supported|billing", re.IGNORECASE)
_FINAL_CODES = (3, 5, 7, 9, 12, 16)  # google.rpc.Code: errors that a new request cannot fix


@dataclasses.dataclass(frozen=True)
class Found:
    """A queued resource as reported by Cloud TPU; fields that it does not report are empty.

    Attributes:
      state: one of its states, or MISSING.
      reason, code: reason of a failure, and its google.rpc.Code.
      accelerator, runtime, spot, reserved: values of the request.
      internal: whether it has no external addresses; None if not reported.
      topology: shape of the slice, such as 4x4x8; twisted or not.
      extras: values of EXTRAS.
      about: notes of the launcher: metadata whose names begin with OURS, without that prefix.
    """

    state: str
    reason: str = ""
    code: int = 0
    accelerator: str = ""
    runtime: str = ""
    spot: bool = False
    reserved: bool = False
    internal: bool | None = None
    topology: str = ""
    extras: tuple[tuple[str, str], ...] = ()
    about: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}" if self.reason else self.state

    @property
    def final(self) -> bool:
        """Whether a failed request would fail again, because its reason is not a lack of capacity."""
        return self.state == FAILED and (self.code in _FINAL_CODES or bool(_FINAL.search(self.reason)))

    @classmethod
    def of(cls, resource: Mapping[str, Any]) -> "Found":
        """Reads the resource QueuedResource of the Cloud TPU API. One without a state does not exist yet."""
        state = resource.get("state", {})
        specs = resource.get("tpu", {}).get("nodeSpec") or [{}]
        node = specs[0].get("node", {})
        error = state.get("failedData", {}).get("error", {})
        reason = error.get("message", "")
        where, capacity = node.get("networkConfig", {}), node.get("schedulingConfig", {})
        extras = {
            "service-account": node.get("serviceAccount", {}).get("email", ""),
            "network": where.get("network", ""),
            "subnetwork": where.get("subnetwork", ""),
        }
        return cls(
            state.get("state", WAITING[0]),
            " ".join(reason.split()),
            int(error.get("code", 0)),
            node.get("acceleratorType", ""),
            node.get("runtimeVersion", ""),
            spot="spot" in resource or bool(capacity.get("spot")),
            reserved=bool(resource.get("guaranteed", {}).get("reserved") or capacity.get("reserved")),
            internal=not where.get("enableExternalIps", False) if where else None,
            topology=node.get("acceleratorConfig", {}).get("topology", ""),
            extras=tuple(extras.items()),
            about=_ours(node),
        )


def _ours(node: Mapping[str, Any]) -> dict[str, str]:
    metadata = node.get("metadata", {})
    return {name.removeprefix(OURS): str(x) for name, x in metadata.items() if name.startswith(OURS)}


@dataclasses.dataclass(frozen=True)
class Node:
    """The machines of a slice as reported by Cloud TPU.

    Attributes:
      state, health: as reported; empty if not.
      created: seconds since 1970, the time from which it is billed; 0 if not reported.
    """

    name: str = ""
    state: str = ""
    health: str = ""
    created: float = 0.0
    accelerator: str = ""
    spot: bool = False
    about: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def well(self) -> bool:
        return self.state in ("", "READY") and self.health in WELL

    def __str__(self) -> str:
        return f"{self.state or 'of unknown state'}, {self.health or 'of unknown health'}"

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> "Node":
        """Reads the resource Node of the Cloud TPU API."""
        created = 0.0
        with contextlib.suppress(KeyError, ValueError):
            created = datetime.datetime.fromisoformat(node["createTime"].replace("Z", "+00:00")).timestamp()
        return cls(
            node.get("name", "").rpartition("/")[2],
            node.get("state", ""),
            node.get("health", ""),
            created,
            node.get("acceleratorType", ""),
            bool(node.get("schedulingConfig", {}).get("spot") or node.get("schedulingConfig", {}).get("preemptible")),
            _ours(node),
        )
