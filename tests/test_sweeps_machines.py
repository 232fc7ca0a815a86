"""The machines that trials can run on: up, promised, gone."""

import math
import socket

import pytest
import ray
import yaml

from sweeps import machines
from sweeps.machines import Losses, Machines, Promised

SMALL, BIG = {"CPU": 8.0, "GPU": 1.0, "memory": 1e9}, {"CPU": 32.0, "GPU": 4.0}
HEAD = {"CPU": 0.0, "node:__internal_head__": 1.0}
QUARTER = {"CPU": 1.0, "GPU": 0.25}


# Places


@pytest.mark.parametrize(
    ("up", "request_", "count"),
    [
        ([SMALL], {"CPU": 1.0}, 8),
        ([SMALL], {"CPU": 3.0}, 2),
        ([SMALL], QUARTER, 4),
        ([SMALL], {"CPU": 4.0, "GPU": 0.25}, 2),
        ([SMALL, BIG, HEAD], QUARTER, 4 + 16),
        ([SMALL, SMALL], {"CPU": 9.0}, 0),  # two machines are not one
        ([HEAD], {"CPU": 1.0}, 0),
        ([], {"CPU": 1.0}, 0),
    ],
)
def test_places_on_machines_that_are_up(up, request_, count):
    assert Machines(up=up).places(request_) == count


def test_places_on_machines_that_are_promised():
    """The fullest come first, as many as may come in all; those that are up are among them."""
    kinds = (Promised(resources=SMALL, most=10), Promised(resources=BIG, most=2))
    for most, count in ((1, 16), (2, 32), (5, 32 + 3 * 4), (99, 32 + 10 * 4)):
        assert Machines(up=[HEAD, SMALL], promised=kinds, most_promised=most).places(QUARTER) == count
    assert Machines(up=[BIG, BIG], promised=kinds[:1], most_promised=1).places(QUARTER) == 32


def test_places_on_machines_of_which_nothing_is_known():
    """They are taken for like the best that is up, and for one that holds a trial when none is."""
    unknown = Promised(resources={}, most=3)
    assert Machines(up=[HEAD], promised=[unknown], most_promised=3).places(QUARTER) == 3
    assert Machines(up=[HEAD, BIG], promised=[unknown], most_promised=3).places(QUARTER) == 3 * 16
    assert Machines(up=[], promised=[unknown], most_promised=3).unknown
    assert not Machines(up=[], promised=[Promised(resources={}, most=0)]).unknown
    assert not Machines(up=[HEAD], promised=[Promised(resources=SMALL, most=3)], most_promised=3).unknown


def test_gpus():
    assert not Machines(up=[HEAD, {"CPU": 2.0}]).gpus
    assert Machines(up=[HEAD, SMALL]).gpus
    assert Machines(up=[HEAD], promised=[Promised(resources=SMALL, most=1)], most_promised=1).gpus


def test_trials_at_once():
    """As many as of the least demanding fit."""
    assert machines.places(Machines(up=[SMALL, BIG]), [QUARTER, {"CPU": 1.0, "GPU": 4.0}]) == 20


def test_a_trial_that_fits_no_machine():
    """The most demanding must fit somewhere, were it on a machine that is still to come."""
    cluster = Machines(up=[HEAD, SMALL], promised=[Promised(resources=BIG, most=2)], most_promised=2)
    machines.require(cluster, [QUARTER, {"CPU": 1.0, "GPU": 4.0}])
    words = (
        r"a trial asks for \{'CPU': 1.0, 'GPU': 5.0\}, more than any machine has "
        r"\(8 CPU, 1 GPU; 32 CPU, 4 GPU; 0 CPU, 0 GPU\): lower --threads or --gpus-per-trial$"
    )
    with pytest.raises(ValueError, match=words):
        machines.require(cluster, [QUARTER, {"CPU": 1.0, "GPU": 5.0}])
    with pytest.raises(ValueError, match=r"more than any machine has \(none\)"):
        machines.require(Machines(up=[]), [QUARTER])


def test_this_machine(monkeypatch):
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 3, "GPU": 2}')
    assert machines.this_machine().places(QUARTER) == 3


# A cluster


class Cluster:
    """What Ray says of one, and the launcher's file on its head."""

    def __init__(self, folder, monkeypatch):
        self.file, self.nodes, self.here = folder / "ray_bootstrap_config.yaml", [], "head"
        monkeypatch.setattr(machines, "LAUNCHER_FILE", self.file)
        monkeypatch.setattr(ray, "nodes", lambda: self.nodes)
        monkeypatch.setattr(ray, "get_runtime_context", lambda: self)

    def get_node_id(self):
        return self.here

    def add(self, name, resources, *, alive=True, port=0):
        address = {"NodeManagerAddress": "127.0.0.1", "NodeManagerPort": port}
        self.nodes.append({"NodeID": name, "Alive": alive, "Resources": resources, **address})

    def launch(self, **config):
        self.file.write_text(yaml.safe_dump(config, sort_keys=False))


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """With a head that trains nothing, on which the driver runs."""
    made = Cluster(tmp_path, monkeypatch)
    made.add("head", HEAD)
    return made


AWS = {
    "max_workers": 6,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 0}},
        "small": {"resources": SMALL, "max_workers": 4},
        "big": {"resources": BIG},
    },
}


def test_a_cluster_without_a_launcher(cluster):
    cluster.add("one", SMALL)
    cluster.add("two", SMALL, alive=False)
    assert machines.of_cluster(joined=True) == Machines(up=[HEAD, SMALL])


def test_what_the_launcher_may_bring(cluster):
    """Of the head no second one; a kind without a limit of its own has the whole cluster's."""
    cluster.launch(**AWS)
    assert machines.of_cluster(joined=True) == Machines(
        up=[HEAD],
        promised=[Promised(resources=SMALL, most=4), Promised(resources=BIG, most=6)],
        most_promised=6,
    )
    assert machines.wait_for_one().places(QUARTER) == 6 * 16


def test_the_launchers_file_is_nothing_to_a_driver_elsewhere(cluster):
    """It may be left from a cluster that this machine was the head of."""
    cluster.add("one", SMALL)
    cluster.launch(**AWS)
    cluster.here = "one"
    assert machines.of_cluster(joined=True) == Machines(up=[HEAD, SMALL])


def test_the_launchers_file_is_nothing_to_a_ray_that_was_started_here(cluster):
    cluster.launch(**AWS)
    assert machines.of_cluster(joined=False) == Machines(up=[HEAD])


LOCAL = {
    "max_workers": 2,
    "head_node_type": "local.cluster.node",
    "available_node_types": {"local.cluster.node": {"resources": {}, "max_workers": 2}},
}
"""As provider local is filled in: one kind, of which nothing is said."""


def test_machines_of_ones_own_are_waited_for(cluster, monkeypatch, capsys):
    def second(_):
        cluster.add("one", SMALL)

    cluster.launch(**LOCAL)
    monkeypatch.setattr(machines.time, "sleep", second)
    found = machines.wait_for_one()
    assert found == Machines(up=[HEAD, SMALL], promised=[Promised(resources={}, most=2)], most_promised=2)
    assert found.places(QUARTER) == 8
    assert capsys.readouterr().err == "waiting for a machine that trains\n"


def test_machines_of_ones_own_that_do_not_come(cluster, monkeypatch):
    cluster.launch(**LOCAL)
    monkeypatch.setattr(machines, "WAIT_SECONDS", -1.0)
    with pytest.raises(ValueError, match="no machine that trains came up in -1 s: ask `ray status` on the head"):
        machines.wait_for_one()


def test_losses(cluster, monkeypatch):
    """A machine counts as lost when it takes no connection any more; what left before, and what comes, does not."""
    now = 1000.0
    monkeypatch.setattr(machines.time, "monotonic", lambda: now)
    with socket.create_server(("127.0.0.1", 0)) as raylet, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [server.getsockname()[1] for server in (raylet, other)]
        cluster.nodes = []
        cluster.add("one", SMALL, port=ports[0])
        cluster.add("two", SMALL, alive=False)
        losses = Losses()
        assert not losses.lately()
        cluster.add("three", SMALL, port=ports[1])
        assert not losses.lately()
        other.close()
        assert losses.lately()
        now = math.nextafter(1000.0 + machines.LATELY_SECONDS, 0)
        assert losses.lately()
        now = 1000.0 + machines.LATELY_SECONDS
        assert not losses.lately()
        cluster.nodes[0]["Alive"] = False
        assert losses.lately()
