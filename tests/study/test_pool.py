"""Studies that share evaluations, a server that goes away, and a run folder that two want to explore into."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import count

import pytest

from hwdse.errors import PoolError, RunFolderError
from hwdse.evaluate import Pool, postgres
from hwdse.files import read_json
from hwdse.study import Budget
from hwdse.study.folder import RunFolder
from tests.listener import Listener
from tests.proxy import Proxy

TABLES = ("mpic/front.csv", "mpic/measured.csv", "stm32h7a3/front.csv", "stm32h7a3/measured.csv")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny, captured):
    """Return the folder of a run that shares nothing and that nobody disturbs."""
    from hwdse.study import explore

    folder = tmp_path_factory.mktemp("alone") / "run"
    explore(
        tiny.model, captured, calibration=tiny.calibration, evaluation=tiny.evaluation, devices=["mpic", "stm32h7a3"],
        objectives=("accuracy", "latency_ms", "size_kib"), precisions=("W2A8", "W4A4", "W8A8"),
        budget=Budget(evaluations=16), out=folder,
    )  # fmt: skip
    return folder


def tables(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in TABLES}


def test_what_one_study_measured_the_next_one_takes(lab, start, scored, alone, tmp_path):
    start(out=tmp_path / "one", pool=lab.url())
    assert len(scored) == 17
    scored.clear()
    start(out=tmp_path / "two", pool=lab.url())
    assert [bits for _, bits in scored] == ["fp32"]  # which shows whether samples and metric can be used
    assert tables(tmp_path / "one") == tables(tmp_path / "two") == tables(alone)
    pools = [Pool(lab.url(), read_only=True), *(Pool(tmp_path / name / "evaluations.db") for name in ("one", "two"))]
    assert [len(pool) for pool in pools] == [17, 17, 17]
    for pool in pools:
        pool.close()
    assert read_json(tmp_path / "one" / "resolved.json")["pool"] == f"127.0.0.1:{lab.server.port}/{lab.name}"
    assert "pool" not in read_json(alone / "resolved.json")


def test_a_study_without_a_folder_shares_too(lab, start, scored):
    start(pool=lab.url())
    scored.clear()
    start(pool=lab.url())
    assert [bits for _, bits in scored] == ["fp32"]


def test_a_pool_that_is_only_read_gets_nothing(lab, start, scored, alone, tmp_path):
    start(evaluations=5, pool=lab.url())
    scored.clear()
    url = lab.reader()
    start(out=tmp_path / "run", pool=Pool(url, read_only=True))
    assert len(scored) == 12  # 16 configurations less 5, and full precision
    assert tables(tmp_path / "run") == tables(alone)
    pool = Pool(lab.url())
    assert len(pool) == 6
    pool.close()


def test_what_was_measured_without_a_pool_is_passed_on(lab, start, scored, tmp_path):
    start(out=tmp_path / "run", evaluations=8)
    scored.clear()
    start(out=tmp_path / "run", evaluations=8, resume=True, pool=lab.url())
    assert scored == []
    pool = Pool(lab.url())
    assert len(pool) == 9
    pool.close()


class CutsAfter(Listener):
    """Cuts the line to the server after so many steps of measuring."""

    def __init__(self, proxy: Proxy, steps: int) -> None:
        super().__init__()
        self._proxy, self._left = proxy, steps

    @property
    def lost(self) -> list[str]:
        return [sentence for sentence in self.sentences if "does not answer" in sentence]

    def advance(self) -> None:
        if self.stages[-1][0] == "measure":
            self._left -= 1
            if self._left == 0:
                self._proxy.cut()


def test_a_server_that_goes_away_loses_nothing(lab, start, scored, alone, tmp_path, monkeypatch):
    monkeypatch.setattr(postgres, "PAUSES_SECONDS", (0.05, 0.1))
    proxy = Proxy(lab.server.port)
    listener = CutsAfter(proxy, 6)
    with pytest.raises(PoolError, match=rf"expected the pool 127.0.0.1:{proxy.port}/{lab.name} to answer, got: "):
        start(out=tmp_path / "run", pool=lab.url(port=proxy.port), progress=listener)
    assert len(listener.lost) == 2
    kept = Pool(tmp_path / "run" / "evaluations.db")
    assert len(kept) == len(scored)
    kept.close()
    proxy.mend()
    before = len(scored)
    start(out=tmp_path / "run", pool=lab.url(port=proxy.port), resume=True)
    assert before < len(scored) == len(set(scored)) == 17  # nothing is measured twice
    assert tables(tmp_path / "run") == tables(alone)
    shared = Pool(lab.url())
    assert len(shared) == 17
    shared.close()
    proxy.cut()


def test_a_short_cut_is_only_mentioned(lab, start, alone, tmp_path, monkeypatch):
    proxy = Proxy(lab.server.port)
    listener = CutsAfter(proxy, 6)
    monkeypatch.setattr(postgres.time, "sleep", lambda _: proxy.mend())
    start(out=tmp_path / "run", pool=lab.url(port=proxy.port), progress=listener)
    assert len(listener.lost) == 1
    assert tables(tmp_path / "run") == tables(alone)
    shared = Pool(lab.url())
    assert len(shared) == 17
    shared.close()
    proxy.cut()


def test_a_pool_that_does_not_answer_is_known_before_anything_is_done(lab, start, scored, tmp_path):
    with pytest.raises(PoolError, match="to answer, got: "):
        start(out=tmp_path / "run", pool=lab.url(port=1))
    assert scored == []
    assert not (tmp_path / "run").exists()


def test_a_clock_that_jumps_back_changes_nothing(start, alone, tmp_path):
    ticks = count()

    def clock() -> float:
        tick = next(ticks)
        return tick * 1e-3 - 5000.0 * (tick > 40)

    study = start(out=tmp_path / "run", clock=clock)
    assert study.meter.evaluations == 16
    assert 0.0 < study.meter.seconds < 1.0
    assert tables(tmp_path / "run") == tables(alone)
    pool = Pool(tmp_path / "run" / "evaluations.db")
    assert pool.get(next(iter_keys(study))).seconds >= 0.0
    pool.close()


def iter_keys(study):
    for scheme, state in study.prepared.states.items():
        for bits in state.measured:
            yield study.prepared.identity.key(scheme, bits)


def test_seconds_are_kept_although_the_clock_jumps_back(start):
    """Without the jump the budget would be spent after some evaluations; it is after as many."""

    def seconds_of(jump: float):
        ticks = count()

        def clock() -> float:
            tick = next(ticks)
            return 0.01 * tick - jump * (tick > 30)

        return start(evaluations=1000, seconds=0.5, clock=clock).meter

    plain, jumped = seconds_of(0.0), seconds_of(1e6)
    assert 3 < plain.evaluations < 1000
    assert abs(jumped.evaluations - plain.evaluations) <= 1
    assert jumped.seconds == pytest.approx(plain.seconds, abs=0.03)


HOLD = """
import sys, time
from pathlib import Path
from hwdse.study.folder import RunFolder
with RunFolder(Path(sys.argv[1]), resume=True).held():
    print("held", flush=True)
    time.sleep(120)
"""


def test_one_process_explores_into_a_folder_and_a_dead_one_is_forgotten(start, tmp_path, contents):
    pytest.importorskip("fcntl")
    run = tmp_path / "run"
    start(out=run, evaluations=3)
    before = contents(run)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(
        RunFolderError, match=rf"expected nobody else to explore into {run}, got another process that does; wait for it"
    ):
        start(out=run, evaluations=5, resume=True)
    assert contents(run) == before
    pool = Pool(run / "evaluations.db", read_only=True)  # who reads is not kept away
    assert len(pool) == 4
    pool.close()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    study = start(out=run, evaluations=5, resume=True)
    assert study.meter.evaluations == 5
    assert {name for name in contents(run) if name not in before} == set()


def test_a_folder_that_got_a_run_meanwhile_is_left_alone(start, tmp_path, contents):
    """Two begin at once; the one that is ready later finds a run where there was nothing."""
    late = RunFolder(tmp_path / "run")
    start(out=tmp_path / "run", evaluations=3)
    before = contents(tmp_path / "run")
    with pytest.raises(RunFolderError, match="expected an empty folder, got a run in "), late.held():
        pass
    assert contents(tmp_path / "run") == before


def test_a_lock_leaves_nothing_behind(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.held():
        assert os.listdir(tmp_path / "run") == []
        with pytest.raises(RunFolderError, match="nobody else to explore into"):
            RunFolder(tmp_path / "run")
    with RunFolder(tmp_path / "run").held():
        pass
