"""The cluster files hold what their comments promise: by Ray's own schema, and at a local server of AWS's protocols."""

import copy
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml

ROOT = Path(__file__).parents[1]
AWS = ROOT / "cluster.yaml"
DOCS = ROOT / "docs/cluster.md"
HEAD_ASKS = {"CreateTags", "DescribeInstances", "RunInstances", "TerminateInstances"}
"""Of EC2, when it starts and ends workers."""
COMMANDS = (
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
each_cluster = pytest.mark.parametrize("path", sorted(ROOT.glob("cluster*.yaml")), ids=lambda path: path.name)


def load(path):
    return yaml.safe_load(path.read_text())


def with_second_type():
    """cluster.yaml with the worker type that it has as a comment."""
    block = re.compile(r"^  # a10g:\n(?:  #   .*\n)+", re.M)
    return yaml.safe_load(block.sub(lambda found: found[0].replace("  # ", "  "), AWS.read_text()))


def validated(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(config)
    validate_config(prepared)
    return prepared


# --- every cluster file


@each_cluster
def test_ray_accepts_it(path):
    validated(load(path))


def test_ray_accepts_the_second_worker_type():
    types = validated(with_second_type())["available_node_types"]
    assert list(types) == ["head", "l4", "a10g"]
    assert types["a10g"] == types["l4"] | {
        "node_config": types["l4"]["node_config"] | {"InstanceType": "g5.2xlarge"},
    }


def test_a_misspelled_field_is_refused():
    from jsonschema import ValidationError

    config = load(AWS)
    config["idle_timeout"] = config.pop("idle_timeout_minutes")
    with pytest.raises(ValidationError, match="'idle_timeout' was unexpected"):
        validated(config)


@each_cluster
def test_ray_fills_in_nothing_of_weight(path):
    """Ray takes what a file leaves out from its own defaults: other machines, another Ray."""
    from ray.autoscaler._private.providers import _get_default_config

    raw = load(path)
    defaults = _get_default_config(raw["provider"])
    missing = {field for field, value in defaults.items() if value and field not in raw}
    if raw["provider"]["type"] == "local":  # its machines come and go by themselves
        missing -= {"upscaling_speed", "idle_timeout_minutes"}
    assert missing == set()
    assert raw["setup_commands"]
    for node in raw.get("available_node_types", {}).values():
        assert node["resources"]
        assert all(isinstance(amount, int) for amount in node["resources"].values())


@each_cluster
def test_ray_starts_on_every_machine(path):
    config = load(path)
    head, worker = (
        next(command for command in config[field] if "ray start" in command)
        for field in ("head_start_ray_commands", "worker_start_ray_commands")
    )
    assert {"--head", "--port=6379", "--autoscaling-config=~/ray_bootstrap_config.yaml"} <= set(head.split())
    assert {"--dashboard-host=127.0.0.1", "--disable-usage-stats"} <= set(head.split())
    assert "--address=$RAY_HEAD_IP:6379" in worker.split()


@each_cluster
def test_shell_commands_parse(path):
    config = load(path)
    for command in (line for field in COMMANDS for line in config.get(field, [])):
        # Ray wraps each like this, in a shell of its own.
        subprocess.run(["bash", "-n", "-c", f"true && ({command})"], check=True)


@each_cluster
def test_what_is_installed_is_there(path):
    """The packages and what pip reads are mounted; constraints and extra exist."""
    config, project = load(path), tomllib.loads((ROOT / "pyproject.toml").read_text())
    mounts = {
        Path(target).relative_to("~/rewind-sweeps"): source
        for target, source in config["file_mounts"].items()
        if target.startswith("~/rewind-sweeps/")
    }
    assert all(str(target) == source and (ROOT / source).exists() for target, source in mounts.items())
    read = {"pyproject.toml", "constraints.txt", project["project"]["readme"], *project["project"]["license-files"]}
    assert {*project["tool"]["setuptools"]["packages"], *read} <= set(mounts.values())

    (install,) = [command for command in config["setup_commands"] if "pip install" in command]
    words = shlex.split(install)
    assert words[words.index("-c") + 1] == "~/rewind-sweeps/constraints.txt"
    folder, extra = re.fullmatch(r"(.*)\[(\w+)\]", words[words.index("-e") + 1]).groups()
    assert folder == "~/rewind-sweeps"
    assert extra in project["project"]["optional-dependencies"]
    assert "ray==" in (ROOT / "constraints.txt").read_text()


# --- what cluster.yaml's commands do


def test_a_machine_knows_the_commit(tmp_path):
    """From what is mounted alone; Python's own files are no changes."""
    if not (ROOT / ".git").exists():
        pytest.skip("this folder is no clone")
    git = ["git", "-c", "safe.directory=*"]
    subprocess.run([*git, "clone", "-q", ROOT, tmp_path / "laptop"], check=True)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tmp_path / "laptop", check=True, capture_output=True, text=True
    )
    machine = tmp_path / "machine"
    machine.mkdir()
    for source in load(AWS)["file_mounts"].values():
        copied = tmp_path / "laptop" / source
        (shutil.copytree if copied.is_dir() else shutil.copy2)(copied, machine / source)
    found = subprocess.run(
        [sys.executable, "-c", "from trainable import provenance; print(provenance.git_commit())"],
        cwd=machine,
        env=os.environ | {"PYTHONPATH": str(machine), "PYTHONDONTWRITEBYTECODE": ""},
        check=True,
        capture_output=True,
        text=True,
    )
    assert list(machine.rglob("__pycache__"))
    assert found.stdout == commit.stdout


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A home folder, and a function that makes a program: it notes its arguments in `log` and does what it is told."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "log").touch()
    (tmp_path / ".bashrc").write_text("# Ubuntu's own\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    def program(name, does="true"):
        (tmp_path / "bin" / name).write_text(f'#!/bin/bash\necho {name} "$@" >> {tmp_path / "log"}\n{does}\n')
        (tmp_path / "bin" / name).chmod(0o755)

    return tmp_path, program


def run(commands):
    for command in commands:
        subprocess.run(["bash", "-c", command], check=True)


def test_setup_bears_to_run_twice(machine):
    home, program = machine
    for name in ("cloud-init", "sudo", "pip", "lspci"):
        program(name)
    # The first time Ubuntu's Python has no venv.
    program("python3", f"grep -q sudo {home}/log && mkdir -p $3/bin && cp {home}/bin/pip $3/bin/pip")
    commands = load(AWS)["setup_commands"]
    run(commands)
    run(commands)

    project = f"{home}/rewind-sweeps"
    install = f"pip install -q --no-cache-dir -c {project}/constraints.txt -e {project}[cluster]"
    assert (home / "log").read_text().splitlines() == [
        "cloud-init status --wait",
        f"python3 -m venv {project}/.venv",
        "sudo apt-get -qq update",
        "sudo apt-get -qq -o DPkg::Lock::Timeout=600 install -y python3-venv",
        f"python3 -m venv {project}/.venv",
        install,
        "lspci",
        "cloud-init status --wait",
        install,
        "lspci",
    ]
    path = subprocess.run(["bash", "-c", ". ~/.bashrc; echo $PATH"], check=True, capture_output=True, text=True).stdout
    assert path.split(":")[0] == f"{project}/.venv/bin"
    assert path.count(".venv/bin") == 1


def test_a_gpu_that_torch_cannot_use_stops_the_setup(machine):
    home, program = machine
    program("lspci", "echo '00:1e.0 3D controller: NVIDIA Corporation AD104GL [L4] (rev a1)'")
    (home / "rewind-sweeps/.venv/bin").mkdir(parents=True)
    (home / "rewind-sweeps/.venv/bin/python").symlink_to(sys.executable)
    (home / "torch.py").write_text("class zeros:\n    __init__ = lambda self, n: None\n    cuda = lambda self: 1 / 0\n")
    (check,) = [command for command in load(AWS)["setup_commands"] if "lspci" in command]
    broken = subprocess.run(["bash", "-c", check], env=os.environ | {"PYTHONPATH": str(home)}, capture_output=True)
    assert broken.returncode == 1
    (home / "torch.py").write_text("class zeros:\n    __init__ = lambda self, n: None\n    cuda = lambda self: None\n")
    subprocess.run(["bash", "-c", check], env=os.environ | {"PYTHONPATH": str(home)}, check=True)


@pytest.mark.parametrize(("alive", "minutes", "ends"), [(True, 30, False), (False, 15, False), (False, 25, True)])
def test_a_worker_without_ray_ends_itself(machine, alive, minutes, ends):
    home, program = machine
    program("crontab", f"cat > {home}/table")
    run(load(AWS)["worker_setup_commands"])
    schedule, minutely = re.fullmatch(r"((?:\* ){5})(.*)\n", (home / "table").read_text()).groups()
    assert schedule == "* * * * * "

    program("pgrep", "true" if alive else "false")
    program("sudo")
    os.utime(home / ".raylet", (time.time() - 60 * minutes,) * 2)
    subprocess.run(["sh", "-c", minutely], check=True)  # cron's shell
    log = (home / "log").read_text().splitlines()
    assert log == ["crontab -", "pgrep -x raylet", *["sudo poweroff"] * ends]


# --- cluster.yaml at AWS


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """Moto's server as an account in which its user made what docs/cluster.md says; no packet leaves this machine."""
    import boto3
    from moto.server import ThreadedMotoServer
    from ray.autoscaler._private.aws import utils

    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        _only_this_machine(patch)
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")  # Ray attaches two of them to a role of its own making
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        session = boto3.Session("testing", "testing", region_name=load(AWS)["provider"]["region"])
        patch.setattr(boto3, "DEFAULT_SESSION", session)
        yield {"home": home} | _made(session.client("ec2"), session.client("iam"), home)

        for cache in (utils.resource_cache, utils.client_cache):  # Ray's, of clients for this server
            cache.cache_clear()
        urlopen(Request(f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset", method="POST")).close()
        server.stop()
        server._server.server_close()


def _only_this_machine(patch):
    connect, lookup = socket.socket.connect, socket.getaddrinfo

    def checked(host):
        assert host in ("127.0.0.1", "localhost"), f"a test asks for {host}"

    def connect_here(self, address):
        checked(address[0] if isinstance(address, tuple) else address)
        return connect(self, address)

    def lookup_here(host, *arguments, **options):
        checked(host)
        return lookup(host, *arguments, **options)

    patch.setattr(socket.socket, "connect", connect_here)
    patch.setattr(socket, "getaddrinfo", lookup_here)


def _made(ec2, iam, home):
    vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="rewind-sweeps", Description="a test's", VpcId=vpc)["GroupId"]
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "203.0.113.7/32"}]}
    members = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[ssh, members])
    trust = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    iam.create_role(RoleName="rewind-sweeps", AssumeRolePolicyDocument=policy)
    iam.create_instance_profile(InstanceProfileName="rewind-sweeps")
    iam.add_role_to_instance_profile(InstanceProfileName="rewind-sweeps", RoleName="rewind-sweeps")
    (home / ".ssh").mkdir()
    (home / ".ssh/rewind-sweeps.pem").write_text(ec2.create_key_pair(KeyName="rewind-sweeps")["KeyMaterial"])
    image = ec2.describe_images(Filters=[{"Name": "name", "Values": ["*ubuntu-xenial*"]}])["Images"][0]["ImageId"]
    return {"ec2": ec2, "iam": iam, "group": group, "image": image}


def edited(account):
    """cluster.yaml as its user edits it."""
    text = AWS.read_text()
    for placeholder, value in (("sg-00000000000000000", "group"), ("ami-00000000000000000", "image")):
        assert text.count(placeholder) == 1
        text = text.replace(placeholder, account[value])
    return yaml.safe_load(text)


def bootstrapped(config):
    """What `ray up` makes of a config, but for resources that it looks up."""
    from ray.autoscaler._private.aws.config import bootstrap_aws

    return bootstrap_aws(validated(copy.deepcopy(config)))


def gaps(config, account):
    """Where a bootstrapped config's machines are not as the user said, and which of them let in everybody."""
    said = {
        "SecurityGroupIds": [account["group"]],
        "IamInstanceProfile": {"Name": "rewind-sweeps"},
        "KeyName": "rewind-sweeps",
        "ImageId": account["image"],
    }
    found = [
        f"{name}: {field}"
        for name, node in config["available_node_types"].items()
        for field, value in said.items()
        if node["node_config"].get(field) != value
    ]
    for name, node in config["available_node_types"].items():
        groups = account["ec2"].describe_security_groups(GroupIds=node["node_config"]["SecurityGroupIds"])
        rules = [rule for group in groups["SecurityGroups"] for rule in group["IpPermissions"]]
        sources = [r["CidrIp"] for rule in rules for r in rule["IpRanges"]]
        sources += [r["CidrIpv6"] for rule in rules for r in rule["Ipv6Ranges"]]
        found += [f"{name}: open to {source}" for source in sources if source in ("0.0.0.0/0", "::/0")]
    return found


def test_bootstrapping_leaves_the_users_choices(account):
    from ray.autoscaler._private.commands import _bootstrap_config

    config = _bootstrap_config(edited(account), no_config_cache=True)
    assert gaps(config, account) == []
    head, worker = (config["available_node_types"][name] for name in ("head", "l4"))
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert worker["resources"].items() >= {"CPU": 8, "GPU": 1, "accelerator_type:L4": 1}.items()
    assert worker["node_config"]["InstanceMarketOptions"] == {
        "MarketType": "spot",
        # A persistent request would start another machine for each that ends.
        "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
    }
    assert (worker["min_workers"], worker["max_workers"], config["max_workers"]) == (0, 4, 4)
    subnets = {subnet["SubnetId"] for subnet in account["ec2"].describe_subnets()["Subnets"]}
    assert set(head["node_config"]["SubnetIds"]) == set(worker["node_config"]["SubnetIds"]) == subnets
    assert config["auth"] == {"ssh_user": "ubuntu", "ssh_private_key": "~/.ssh/rewind-sweeps.pem"}


def test_bootstrapping_makes_nothing(account):
    """Neither groups, roles, profiles nor keys: Ray makes them before it asks whether to go on."""

    def everything():
        ec2, iam = account["ec2"], account["iam"]
        return (
            [group["GroupId"] for group in ec2.describe_security_groups()["SecurityGroups"]],
            [pair["KeyName"] for pair in ec2.describe_key_pairs()["KeyPairs"]],
            [role["RoleName"] for role in iam.list_roles()["Roles"]],
            [profile["InstanceProfileName"] for profile in iam.list_instance_profiles()["InstanceProfiles"]],
            sorted(path.name for path in account["home"].rglob("*")),
        )

    before = everything()
    bootstrapped(edited(account))
    assert everything() == before


@pytest.mark.parametrize(
    ("node", "field", "found"),
    [
        ("l4", "IamInstanceProfile", ["l4: IamInstanceProfile"]),
        ("head", "IamInstanceProfile", ["head: IamInstanceProfile"]),
        ("l4", "SecurityGroupIds", ["l4: SecurityGroupIds", "l4: open to 0.0.0.0/0"]),
    ],
)
def test_a_missing_field_is_found(account, monkeypatch, node, field, found):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # Ray waits for a new role to be known everywhere
    config = edited(account)
    del config["available_node_types"][node]["node_config"][field]
    assert gaps(bootstrapped(config), account) == found


def test_a_file_that_nobody_edited_is_refused(account, capsys):
    import click

    with pytest.raises((AssertionError, click.ClickException)):
        bootstrapped(load(AWS))
    assert "Failed to detect a security group" in "".join(capsys.readouterr())


def test_machines_start_and_end_as_the_file_says(account):
    """Through Ray's own node provider, which is what the head uses."""
    from ray.autoscaler._private.providers import _get_node_provider
    from ray.autoscaler._private.util import hash_launch_conf

    config = bootstrapped(edited(account))
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    asked = set()
    for resource in (provider.ec2, provider.ec2_fail_fast):
        events = resource.meta.client.meta.events
        events.register("before-call", lambda model, **_: asked.add(model.name))
    for kind, name in (("head", "head"), ("worker", "l4")):
        node_config = config["available_node_types"][name]["node_config"]
        tags = {
            "ray-node-kind": kind,
            "ray-user-node-type": name,
            "ray-node-name": name,
            "ray-launch-config": hash_launch_conf(node_config, config["auth"]),
        }
        provider.create_node(node_config, tags, 1)

    head, worker = _instances(account)
    assert (head["InstanceType"], head.get("InstanceLifecycle")) == ("m7i.large", None)
    assert (worker["InstanceType"], worker.get("InstanceLifecycle")) == ("g6.2xlarge", "spot")
    for instance in (head, worker):
        assert instance["IamInstanceProfile"]["Arn"].endswith(":instance-profile/rewind-sweeps")
        assert [group["GroupId"] for group in instance["SecurityGroups"]] == [account["group"]]
        assert (instance["KeyName"], instance["ImageId"]) == ("rewind-sweeps", account["image"])
        assert instance["MetadataOptions"]["HttpTokens"] == "required"
        (disk,) = instance["BlockDeviceMappings"]
        volume = account["ec2"].describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"]])["Volumes"][0]
        assert (disk["DeviceName"], volume["Size"], volume["VolumeType"]) == ("/dev/sda1", 150, "gp3")
        assert disk["Ebs"]["DeleteOnTermination"]
    assert _when_shut_down(account, worker) == "terminate"

    nodes = provider.non_terminated_nodes({})
    provider.set_node_tags(nodes[0], {"ray-node-status": "up-to-date"})
    provider.terminate_nodes(nodes)
    assert [instance["State"]["Name"] for instance in _instances(account)] == ["terminated", "terminated"]
    assert asked == HEAD_ASKS


def test_the_documented_policy_allows_what_the_head_asks():
    assert set(re.findall(r'"ec2:(\w+)"', DOCS.read_text())) == HEAD_ASKS


def _instances(account):
    """Of the account, the head first."""
    found = [i for r in account["ec2"].describe_instances()["Reservations"] for i in r["Instances"]]
    return sorted(found, key=lambda instance: instance["InstanceType"] != "m7i.large")


def _when_shut_down(account, instance):
    attribute = "instanceInitiatedShutdownBehavior"
    answer = account["ec2"].describe_instance_attribute(InstanceId=instance["InstanceId"], Attribute=attribute)
    return answer["InstanceInitiatedShutdownBehavior"]["Value"]
