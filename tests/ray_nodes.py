"""A process that holds a Ray cluster of several nodes on this machine, commanded line by line.

Prints the cluster's address. `add {"num_cpus": 1, …}` starts a node and prints its id; `kill ID` ends all its processes
at once, as when a machine loses power, and prints the id; the end of the input ends the cluster. A node's processes
start in the folder "cwd" and with the variables "env", where these are given.
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

HEALTH_CHECK_MS = 1000
"""Between looks at a node, which is dead when five find nothing. With Ray's own 3000 the tests take a minute more."""


@contextlib.contextmanager
def surroundings(cwd: str, env: dict[str, str]) -> Iterator[None]:
    """A node's processes inherit them from this one."""
    before, folder = dict(os.environ), os.getcwd()
    os.environ.update(env)
    os.chdir(cwd)
    try:
        yield
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)


def kill(cluster: Cluster, node: Any) -> None:
    """Ray alone would let the workers find out that their raylet is gone: they would train for a while."""
    raylets = [process.process.pid for process in node.all_processes["raylet"]]
    for pid in [*raylets, *(child for raylet in raylets for child in children(raylet))]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def main() -> None:
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": {"health_check_period_ms": HEALTH_CHECK_MS}}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    print(cluster.address, flush=True)
    nodes = {}
    for line in sys.stdin:
        command, argument = line.split(maxsplit=1)
        if command == "add":
            options = json.loads(argument)
            with surroundings(options.pop("cwd", "."), options.pop("env", {})):
                node = cluster.add_node(**options)
            nodes[node.node_id] = node
            print(node.node_id, flush=True)
        else:
            kill(cluster, nodes.pop(argument.strip()))
            print(argument.strip(), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
