"""The machines that trials can run on: those that are up, and those that the cluster's autoscaler may bring."""

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import yaml
from ray._private.resource_and_label_spec import ResourceAndLabelSpec
from ray._private.services import canonicalize_bootstrap_address

from trainable.tune import has_left

Resources = dict[str, float]
"""Amounts by kind: CPU, GPU."""
LAUNCHER_FILE = Path("~/ray_bootstrap_config.yaml")
"""What `ray up` leaves on the head: the machines that its autoscaler may bring."""
WAIT_SECONDS = 600.0
"""For a first machine that trains, where what will come is not known."""
LATELY_SECONDS = 60.0
"""After a machine was seen to have left: what dies meanwhile is taken to have died with it."""


@dataclass(frozen=True, kw_only=True)
class Promised:
    """Machines of one kind that the autoscaler may bring."""

    resources: Resources
    """Of each; empty: not known until one is up."""
    most: int


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Of a cluster, at one moment."""

    up: Sequence[Resources]
    promised: Sequence[Promised] = field(default=())
    most_promised: int = 0
    """Of all kinds together."""

    @property
    def unknown(self) -> bool:
        """Whether machines may come of which nothing is known."""
        return any(not kind.resources and kind.most for kind in self.promised)

    @property
    def gpus(self) -> bool:
        """Whether any has a GPU."""
        return any(machine.get("GPU", 0) > 0 for machine in self._every())

    def places(self, request: Resources) -> int:
        """Trials with this request that run at once, when all machines have come; 0: it fits none."""
        now = sum(_places(machine, request) for machine in self.up)
        likely = max((_places(machine, request) for machine in self.up), default=1)
        each = [_places(kind.resources, request) if kind.resources else max(1, likely) for kind in self.promised]
        fullest = sorted(((places, kind.most) for places, kind in zip(each, self.promised, strict=True)), reverse=True)
        later, left = 0, self.most_promised
        for places, most in fullest:
            later += places * min(most, left)
            left -= min(most, left)
        return max(now, later)

    def __str__(self) -> str:
        kinds = sorted({_words(machine) for machine in self._every()}, reverse=True)
        return "; ".join(kinds) or "none"

    def _every(self) -> list[Resources]:
        return [*self.up, *(kind.resources for kind in self.promised if kind.resources)]


def cluster_address() -> str | None:
    """Of the running cluster that this process would join; None: Ray would start on this machine."""
    return canonicalize_bootstrap_address(None)  # type: ignore[arg-type]


def this_machine() -> Machines:
    """What Ray would find here, before it starts."""
    return Machines(up=[ResourceAndLabelSpec().resolve(is_head=True).to_resource_dict()])


def of_cluster(*, joined: bool) -> Machines:
    """The cluster as it is now. joined: it was there before; else this process started it, and nothing can be added."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    here = ray.get_runtime_context().get_node_id()
    on_head = any("node:__internal_head__" in node["Resources"] for node in nodes if node["NodeID"] == here)
    file = LAUNCHER_FILE.expanduser()
    up = [node["Resources"] for node in nodes]
    if not joined or not on_head or not file.exists():  # no autoscaler, or nothing known of it
        return Machines(up=up)
    config = yaml.safe_load(file.read_text())
    return Machines(up=up, promised=_promised(config), most_promised=config.get("max_workers", 0))


def wait_for_one() -> Machines:
    """The cluster's machines, when something is known of one that trains. Raises ValueError when none comes."""
    began, said = time.monotonic(), False
    while True:
        machines = of_cluster(joined=True)
        if not machines.unknown or any(machine.get("CPU", 0) > 0 for machine in machines.up):
            return machines
        if time.monotonic() - began > WAIT_SECONDS:
            raise ValueError(f"no machine that trains came up in {WAIT_SECONDS:.0f} s: ask `ray status` on the head")
        if not said:
            print("waiting for a machine that trains", file=sys.stderr, flush=True)
            said = True
        time.sleep(1)


def places(machines: Machines, requests: Iterable[Resources]) -> int:
    """Trials that run at once, if all ask as the least demanding."""
    return max(machines.places(request) for request in requests)


def require(machines: Machines, requests: Iterable[Resources]) -> None:
    """Raise ValueError when a trial with one of these requests fits no machine at all."""
    for request in requests:
        if machines.places(request) < 1:
            raise ValueError(
                f"a trial asks for {request}, more than any machine has ({machines}): "
                "lower --threads or --gpus-per-trial"
            )


class Losses:
    """Machines that leave the cluster while a study runs."""

    def __init__(self) -> None:
        self._left, self._at = _left(), -LATELY_SECONDS

    def lately(self) -> bool:
        """Whether one has left lately. Asks every machine: for the moments when something has died."""
        left, now = _left(), time.monotonic()
        if left - self._left:
            self._left, self._at = left, now
        return now - self._at < LATELY_SECONDS


def _promised(config: dict[str, Any]) -> list[Promised]:
    head = config.get("head_node_type")
    kinds = config.get("available_node_types", {})
    return [
        Promised(
            resources=dict(kind.get("resources") or {}), most=kind.get("max_workers", config.get("max_workers", 0))
        )
        for name, kind in kinds.items()
        if name != head or len(kinds) == 1  # provider local has one kind for all
    ]


def _left() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if has_left(node)}


def _places(machine: Resources, request: Resources) -> int:
    return int(min(machine.get(kind, 0) / amount for kind, amount in request.items()))


def _words(machine: Resources) -> str:
    return f"{machine.get('CPU', 0):g} CPU, {machine.get('GPU', 0):g} GPU"
