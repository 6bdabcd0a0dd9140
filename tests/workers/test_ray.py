"""A crew of Ray actors on a real cluster of several nodes on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from hwdse.errors import InputError
from hwdse.workers.crew import Crew
from hwdse.workers.ray_actors import RayActors

pytest.importorskip("ray", reason="Ray is not installed")
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)


@pytest.fixture
def cluster():
    """Return a cluster whose head has no processor for workers."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.fixture
def engaged(cluster, listener):
    """Return a function that engages a crew of actors of the cluster."""
    crews: list[Crew] = []

    def engage(count: int = 2, **options) -> Crew:
        crews.append(Crew(RayActors(address=cluster.address, workers=count), count, progress=listener, **options))
        return crews[-1]

    yield engage
    for crew in crews:
        crew.close()


def test_actors_of_two_nodes_do_the_work_and_what_they_share_is_sent_once(cluster, engaged):
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    weight = torch.randn(300, 200)

    def work(x, tensor):
        import ray

        time.sleep(0.05)
        return x, float(tensor.sum()), torch.get_num_threads(), ray.get_runtime_context().get_node_id()

    found = list(engaged(2).map(work, [(i, weight) for i in range(12)], about="a sum"))
    assert [row[0] for row in found] == list(range(12))
    assert {row[1:3] for row in found} == {(float(weight.sum()), 1)}
    assert len({row[3] for row in found}) == 2


def test_a_node_that_is_killed_takes_no_work_with_it_and_a_new_one_is_used(cluster, engaged, listener, once):
    lost = cluster.add_node(num_cpus=1)
    crew = engaged(1)
    assert list(crew.map(abs, [(-1,)], about="a number")) == [1]
    first = once()

    def work(x):
        if first():
            time.sleep(600)
        return x

    numbers = [crew.submit(work, x, about="a number") for x in range(3)]
    time.sleep(1.0)
    cluster.remove_node(lost, allow_graceful=False)
    cluster.add_node(num_cpus=1)
    assert dict(crew.next() for _ in numbers) == dict(zip(numbers, range(3), strict=True))
    assert any("a number is done again elsewhere" in sentence for sentence in listener.sentences)


def test_an_actor_that_is_killed_or_stopped_is_replaced(cluster, engaged, listener, once):
    cluster.add_node(num_cpus=2)
    killed, stopped = once("killed"), once("stopped")

    def work(x):
        if x == 1 and killed():
            os.kill(os.getpid(), signal.SIGKILL)
        if x == 2 and stopped():
            os.kill(os.getpid(), signal.SIGSTOP)
        return x

    found = list(engaged(2, least_patience_s=3.0).map(work, [(i,) for i in range(6)], about="a number"))
    assert found == list(range(6))
    assert any("ActorDiedError" in sentence for sentence in listener.sentences)
    assert any("gave no answer for 3 s" in sentence for sentence in listener.sentences)


def test_no_cluster_is_a_sentence():
    said = r"expected a Ray cluster at 127.0.0.1:1, got ConnectionRefusedError.*; start one by ray start --head"
    with pytest.raises(InputError, match=said):
        RayActors(address="127.0.0.1:1", workers=1)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=120)


@pytest.fixture
def far_away(monkeypatch):
    """Return the address of a head, a function that starts a node there, and one that cuts the line to that node.

    The node is in a network of its own.
    """
    name, ours, theirs, port = f"hwdse{os.getpid()}", "10.213.77.1", "10.213.77.2", 6399
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network of its own needs the superuser and the command ip")
    try:
        run("ip", "netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this system allows no network namespace: {error.stderr.decode().strip()}")
    quick = {"initial_delay_ms": 1000, "period_ms": 500, "timeout_ms": 1000, "failure_threshold": 3}
    for key, value in quick.items():
        monkeypatch.setenv(f"RAY_health_check_{key}", str(value))
    inside = ("ip", "netns", "exec", name)
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str, where: tuple[str, ...] = ()) -> None:
        command = [*where, sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen(command, start_new_session=True, **quiet))

    def node(address: str, where: tuple[str, ...] = ()) -> None:
        start(f"--address={ours}:{port}", f"--node-ip-address={address}", "--num-cpus=1", where=where)

    try:
        run("ip", "link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        run("ip", "address", "add", f"{ours}/30", "dev", f"{name}a")
        run("ip", "link", "set", f"{name}a", "up")
        run(*inside, "ip", "address", "add", f"{theirs}/30", "dev", f"{name}b")
        for device in (f"{name}b", "lo"):
            run(*inside, "ip", "link", "set", device, "up")
        start("--head", f"--node-ip-address={ours}", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")
        until(lambda: listens(ours, port))
        node(theirs, where=inside)
        yield f"{ours}:{port}", lambda: node(ours), lambda: run("ip", "link", "set", f"{name}a", "down")
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=60)
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def until(happened) -> None:
    """Wait until something has happened, for two minutes at most."""
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def test_a_cut_line_loses_a_node_and_no_work(far_away, listener, once):
    address, start_node, cut = far_away
    first = once()

    def work(x):
        import ray

        if first():
            time.sleep(600)
        return x, ray.util.get_node_ip_address()

    with Crew(RayActors(address=address, workers=1), 1, progress=listener) as crew:
        number = crew.submit(work, 5, about="a number")

        def begun() -> bool:
            crew.look()
            return first.marker.exists()

        until(begun)
        cut()
        start_node()
        assert crew.next() == (number, (5, "10.213.77.1"))
    assert any("a number is done again elsewhere" in sentence for sentence in listener.sentences)
