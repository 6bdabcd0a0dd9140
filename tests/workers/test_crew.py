"""A crew of real processes, and everything that can happen to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hwdse.errors import InputError, WorkerError
from hwdse.workers import crew as crews
from hwdse.workers.crew import Crew
from hwdse.workers.processes import Processes


@pytest.fixture
def engaged(listener):
    """Return a function that engages a crew of processes."""
    crews: list[Crew] = []

    def engage(count: int = 2, *, memory_limit_mib: int | None = None, **options) -> Crew:
        crews.append(Crew(Processes(memory_limit_mib=memory_limit_mib), count, progress=listener, **options))
        return crews[-1]

    yield engage
    for crew in crews:
        crew.close()


def test_results_come_in_the_order_of_the_questions_from_more_than_one_process(engaged):
    def square(x):
        time.sleep(0.05)
        return x * x, os.getpid()

    found = list(engaged(2).map(square, [(i,) for i in range(20)], about="a square"))
    assert [value for value, _ in found] == [i * i for i in range(20)]
    processes = {process for _, process in found}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_workers_compute_with_one_thread_and_share_what_they_read(engaged):
    weight = torch.randn(500, 400)

    def look(tensor):
        mapped = any("/part" in line for line in Path("/proc/self/maps").read_text().splitlines())
        return torch.get_num_threads(), float(tensor.double().sum()), mapped

    assert list(engaged(2).map(look, [(weight,)] * 4, about="a sum")) == [(1, float(weight.double().sum()), True)] * 4


def test_a_killed_worker_is_replaced_and_its_work_done_again(engaged, listener, once):
    first = once()

    def work(x):
        if x == 3 and first():
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    assert list(engaged(2).map(work, [(i,) for i in range(8)], about="a number")) == list(range(8))
    (sentence,) = listener.sentences
    assert "ended by SIGKILL; a number is done again elsewhere" in sentence


def test_a_worker_that_hangs_is_replaced(engaged, listener, once):
    first = once()

    def work(x):
        if x == 1 and first():
            os.kill(os.getpid(), signal.SIGSTOP)
        return x

    assert list(engaged(2, least_patience_s=1.0).map(work, [(i,) for i in range(4)], about="a number")) == list(
        range(4)
    )
    assert any("gave no answer for" in sentence for sentence in listener.sentences)


def test_work_that_ends_every_worker_is_given_up(engaged):
    def work():
        os._exit(17)

    with pytest.raises(WorkerError, match=r"to finish the impossible, got 3 failures \(ended with exit code 17; "):
        list(engaged(2).map(work, [()], about="the impossible"))


def test_a_worker_keeps_to_its_memory_and_the_next_one_has_it_again(engaged, listener, once):
    first = once()

    def work(x):
        return float(torch.zeros((2**30 if first() else 2**10) + x).sum())

    assert list(engaged(1, memory_limit_mib=512).map(work, [(0,), (1,)], about="a sum")) == [0.0, 0.0]
    assert any("expected the work to fit into the worker's memory" in sentence for sentence in listener.sentences)


def test_what_fits_into_no_worker_is_a_sentence(engaged):
    def work():
        return float(torch.zeros(2**30).sum())

    with pytest.raises(WorkerError, match="raise the memory limit"):
        list(engaged(2, memory_limit_mib=512).map(work, [()], about="a sum"))


def test_workers_of_another_version_are_not_used(engaged, listener, monkeypatch):
    ours = crews.versions()
    monkeypatch.setattr(crews, "versions", lambda: {**ours, "hwdse": "99.0"})
    with pytest.raises(WorkerError, match=rf"has hwdse {ours['hwdse']} where hwdse 99.0 is needed"):
        list(engaged(2).map(abs, [(1,)], about="a number"))
    assert all("it is not used" in sentence for sentence in listener.sentences)


def test_workers_that_have_another_network_are_not_used(engaged, monkeypatch):
    publish = Processes.publish
    published = []

    def other(self, part):
        path = publish(self, part)
        Path(path).write_bytes(part[:-1] + bytes([part[-1] ^ 1]))
        published.append(path)
        return path

    monkeypatch.setattr(Processes, "publish", other)
    with pytest.raises(WorkerError, match="expected the network and the data of this run, got others"):
        list(engaged(2).map(torch.sum, [(torch.ones(3),)], about="a sum"))
    assert published


def test_what_a_function_refuses_is_refused_once_a_second_worker_agrees(engaged, tmp_path):
    def work(path):
        Path(path, str(os.getpid())).touch()
        raise InputError("expected another number, got this one; change it")

    with pytest.raises(InputError, match="expected another number, got this one; change it"):
        list(engaged(2).map(work, [(str(tmp_path),)], about="a number"))
    assert len(list(tmp_path.iterdir())) == 2


def test_what_one_worker_alone_refuses_is_done_by_another(engaged, listener, once):
    first = once()

    def work(x):
        if first():
            raise InputError("expected finite scores, got NaN")
        return x

    assert list(engaged(2).map(work, [(5,)], about="a number")) == [5]
    assert any("expected finite scores, got NaN; a number is done again elsewhere" in s for s in listener.sentences)


def test_what_nobody_has_begun_can_be_withdrawn(engaged):
    crew = engaged(1)
    numbers = [crew.submit(time.sleep, 0.3, about="a pause") for _ in range(4)]
    done, _ = crew.next()
    withdrawn = crew.withdraw(numbers)
    begun = [number for number in numbers if number not in withdrawn]
    assert done == numbers[0]
    assert begun == numbers[:2]
    assert crew.next()[0] == numbers[1]


SCRIPT = """
import sys, time
from pathlib import Path
from hwdse.workers.crew import Crew
from hwdse.workers.processes import Processes
def work(path):
    import os
    Path(path, str(os.getpid())).touch()
    time.sleep(600)
crew = Crew(Processes(), 2)
list(crew.map(work, [(sys.argv[1],)] * 2, about="a long pause"))
"""


def test_workers_end_when_nobody_is_left_to_ask(tmp_path):
    driver = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)])
    deadline = time.monotonic() + 120
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    driver.kill()
    driver.wait()
    processes = [int(path.name) for path in tmp_path.iterdir()]
    while any(_runs(process) for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _runs(process: int) -> bool:
    """Return True if a process is there and not only its exit code."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
