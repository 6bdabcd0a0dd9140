"""What was acknowledged is there, once, whatever dies: writers, servers and lines between them are real."""

from __future__ import annotations

import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from hwdse.errors import PoolError, RunFolderError
from hwdse.evaluate import Pool, line, mounts, postgres, sqlite
from tests.evaluate.writing import key_of, scores_of
from tests.postgres import PASSWORD, SPELLINGS
from tests.proxy import Proxy

WRITER = Path(__file__).with_name("writing.py")
ROOT = Path(__file__).parents[2]


class Writer:
    """A process that puts evaluations into a pool."""

    def __init__(self, place, first: int, last: int, *changes: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(WRITER), str(place), str(first), str(last), *changes],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        self.acknowledged: list[int] = []

    def wait_for(self, count: int) -> None:
        """Wait until so many evaluations are acknowledged."""
        while len(self.acknowledged) < count:
            text = self._process.stdout.readline()
            assert text, self._process.stderr.read()
            self.acknowledged.append(int(text))

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        assert self.end()[0] == -signal.SIGKILL

    def end(self, *, within: float = 60) -> tuple[int, str]:
        """Wait for the end, and return the exit code and what was said."""
        out, said = self._process.communicate(timeout=within)
        self.acknowledged += map(int, out.split())
        assert "Traceback" not in said
        assert not any(spelling in said for spelling in SPELLINGS)
        return self._process.returncode, said


def check(place, acknowledged, *, at_most: int) -> None:
    """Check that everything that was acknowledged is there as it was written, and nothing twice."""
    pool = Pool(place, read_only=True)
    found = pool.get_many(map(key_of, acknowledged))
    assert len(found) == len(acknowledged)
    for i in acknowledged:
        assert np.array_equal(found[key_of(i)].per_sample, scores_of(i).per_sample)
    assert len(acknowledged) <= len(pool) <= at_most
    pool.close()


def test_a_writer_is_killed(somewhere):
    writer = Writer(somewhere.place, 0, 10_000)
    writer.wait_for(40)
    writer.kill()
    count = len(writer.acknowledged)
    assert 40 <= count < 10_000
    check(somewhere.place, range(count), at_most=count + 1)
    again = Writer(somewhere.place, 0, count + 20)
    assert again.end() == (0, "")
    assert again.acknowledged == list(range(count + 20))
    check(somewhere.place, range(count + 20), at_most=count + 20)
    if isinstance(somewhere.place, Path):
        assert [path.name for path in somewhere.place.parent.iterdir()] == ["pool.db"]


def test_who_may_not_write_reads_what_a_killed_writer_left(tmp_path):
    path = tmp_path / "pool.db"
    writer = Writer(path, 0, 10_000)
    writer.wait_for(20)
    writer.kill()
    assert (tmp_path / "pool.db-wal").stat().st_size > 0
    for file in tmp_path.iterdir():
        file.chmod(0o444)
    check(path, writer.acknowledged, at_most=len(writer.acknowledged) + 1)


def test_a_server_is_killed_and_comes_back(lab):
    writer = Writer(lab.url(), 0, 400)
    writer.wait_for(50)
    lab.server.kill()
    time.sleep(0.3)
    lab.server.start()
    code, said = writer.end()
    assert code == 0
    assert writer.acknowledged == list(range(400))
    assert f"note: the pool 127.0.0.1:{lab.server.port}/{lab.name} does not answer (" in said
    assert "; trying again in 0.1 s" in said
    check(lab.url(), range(400), at_most=400)


def test_a_server_is_killed_and_stays_away(lab):
    writer = Writer(lab.url(), 0, 10_000, "pauses=0.1,0.2")
    writer.wait_for(50)
    lab.server.kill()
    code, said = writer.end()
    assert code == 2
    assert said.count("note: ") == 2
    last = said.splitlines()[-1]
    assert last.startswith(f"error: expected the pool 127.0.0.1:{lab.server.port}/{lab.name} to answer, got: ")
    assert last.endswith("; see to the server, the network and the URL, and go on with --resume")
    lab.server.start()
    count = len(writer.acknowledged)
    check(lab.url(), writer.acknowledged, at_most=count + 1)


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_a_line_is_lost_and_mended(fault, lab):
    proxy = Proxy(lab.server.port)
    writer = Writer(lab.url(port=proxy.port), 0, 200, "answer=1.5")
    writer.wait_for(40)
    getattr(proxy, fault)()
    time.sleep(1.0)
    proxy.mend()
    code, said = writer.end()
    assert code == 0, said
    assert "does not answer" in said
    assert writer.acknowledged == list(range(200))
    check(lab.url(), range(200), at_most=200)
    proxy.cut()


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_a_line_is_lost_for_good(fault, lab):
    """A line that takes everything and gives nothing back looks alive to the system; no one hangs on it."""
    proxy = Proxy(lab.server.port)
    writer = Writer(lab.url(port=proxy.port), 0, 10_000, "answer=1", "pauses=0.1")
    writer.wait_for(40)
    getattr(proxy, fault)()
    started = time.monotonic()
    code, said = writer.end(within=30)
    assert code == 2
    assert "to answer, got: " in said.splitlines()[-1]
    assert time.monotonic() - started < 20  # one answer, one pause, one attempt to connect
    check(lab.url(), writer.acknowledged, at_most=len(writer.acknowledged) + 1)
    proxy.cut()


def test_the_disk_is_full(tmp_path):
    """As far as a process can tell: no file of its may grow beyond some size."""
    path = tmp_path / "pool.db"
    writer = Writer(path, 0, 10_000, "bytes=400000")
    code, said = writer.end()
    assert code == 2
    assert re.fullmatch(
        rf"error: expected room to write to {re.escape(str(path))}, got: .*; free some, and go on with --resume\n", said
    )
    count = len(writer.acknowledged)
    assert count > 20
    check(path, writer.acknowledged, at_most=count)
    again = Writer(path, 0, count + 20)
    assert again.end() == (0, "")
    check(path, range(count + 20), at_most=count + 20)


def test_a_real_disk_is_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(disk)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this user may not mount a small disk")
    try:
        writer = Writer(disk / "pool.db", 0, 10_000)
        code, said = writer.end()
        assert (code, said.count("\n")) == (2, 1)
        assert "got: database or disk is full; free some, and go on with --resume" in said
        shutil.copytree(disk, tmp_path / "copy")
        check(tmp_path / "copy" / "pool.db", writer.acknowledged, at_most=len(writer.acknowledged))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_somebody_else_writes_to_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.2)
    path = tmp_path / "pool.db"
    pool = Pool(path)
    pool.put(key_of(0), scores_of(0))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(
            RunFolderError, match=r"expected one process that writes to .*pool\.db, got another one at it"
        ):
            pool.put(key_of(1), scores_of(1))
        assert pool.get(key_of(0)) is not None  # who reads does not wait
        other.execute("ROLLBACK")
    pool.put(key_of(1), scores_of(1))
    pool.close()
    check(path, [0, 1], at_most=2)


def test_two_write_the_same_at_once(lab):
    writers = [Writer(lab.url(), 0, 150) for _ in range(2)]
    assert [writer.end() for writer in writers] == [(0, ""), (0, "")]
    assert all(writer.acknowledged == list(range(150)) for writer in writers)
    check(lab.url(), range(150), at_most=150)


def test_many_open_an_empty_database_at_once(lab):
    pools: list[Pool] = []
    gate = threading.Barrier(8)

    def opens() -> None:
        gate.wait()
        pools.append(Pool(lab.url()))

    threads = [threading.Thread(target=opens) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(pool) for pool in pools] == [0] * 8
    assert lab.execute("SELECT key, value FROM about") == [("schema", "1")]
    for pool in pools:
        pool.close()


def test_a_lock_is_not_waited_for_without_end(lab, monkeypatch):
    """Somebody else may hold the table; the server ends the statement."""
    monkeypatch.setitem(postgres._SETTINGS, "statement_timeout", "500ms")
    pool = Pool(lab.url())
    import psycopg

    with psycopg.connect(lab.url()) as other:
        other.execute("LOCK TABLE evaluations")
        with pytest.raises(PoolError, match="got canceling statement due to statement timeout"):
            pool.put(key_of(0), scores_of(0))
    pool.put(key_of(0), scores_of(0))
    pool.close()


def test_who_may_only_read_reads(lab):
    url = lab.reader()
    with pytest.raises(PoolError, match="permission denied for schema public"):
        Pool(url)
    Pool(lab.url()).close()
    writer = Pool(lab.url())
    writer.put(key_of(0), scores_of(0))
    url = lab.reader()
    reader = Pool(url, read_only=True)
    assert np.array_equal(reader.get(key_of(0)).per_sample, scores_of(0).per_sample)
    hopeful = Pool(url)
    with pytest.raises(PoolError, match="permission denied for table evaluations"):
        hopeful.put(key_of(1), scores_of(1))
    assert len(writer) == 1
    for pool in (reader, writer, hopeful):
        pool.close()


FORM = r"expected the URL of a pool as postgresql://user:password@host/database, got "
WRONG = {
    "no URL": (lambda _: f"postgresql//hwdse:{PASSWORD}@host/db", FORM + r"another text; correct it"),
    "no port": (lambda _: f"postgresql://hwdse:{PASSWORD}@host:port/db", FORM + r"another text; correct it"),
    "a file": (lambda _: "sqlite:////tmp/pool.db", FORM + "one of sqlite; without a URL, the run folder keeps its own"),
    "another server": (lambda _: f"mysql://hwdse:{SPELLINGS[2]}@host/db", FORM + r"one of mysql"),
    "a wrong password": (
        lambda lab: lab.url(password=PASSWORD + "x"),
        r"expected the pool 127.0.0.1:\d+/lab_\w+ to answer, got: .*password authentication failed",
    ),
    "nobody there": (
        lambda lab: lab.url(port=1),
        r"expected the pool 127.0.0.1:1/lab_\w+ to answer, got: .*[Cc]onnection refused.*; see to the server",
    ),
    "no such database": (lambda lab: lab.url() + "x", r'to answer, got: .*database "lab_\w+x" does not exist'),
    "an option that is none": (
        lambda lab: f"{lab.url()}?{SPELLINGS[2]}=1",
        r"expected a pool of evaluations in 127.0.0.1:\d+/lab_\w+, got .*invalid connection option",
    ),
    "a password as an option": (
        lambda lab: f"postgresql://127.0.0.1:{lab.server.port}/{lab.name}?user=hwdse&password={SPELLINGS[2]}x",
        r"expected the pool 127.0.0.1:\d+/lab_\w+ to answer, got: .*password authentication failed",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_url_is_said_without_the_password(name, lab):
    make, sentence = WRONG[name]
    started = time.monotonic()
    with pytest.raises(PoolError, match=sentence) as caught:
        Pool(make(lab))
    assert time.monotonic() - started < 5  # what never answered is not waited for
    shown = subprocess.run(
        [sys.executable, "-c", "import sys\nfrom hwdse.evaluate import Pool\nPool(sys.argv[1])", make(lab)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert "PoolError" in shown.stderr
    for said in (str(caught.value), shown.stderr, shown.stdout):
        assert not any(spelling in said for spelling in SPELLINGS)


def test_a_password_in_what_the_driver_says_is_hidden(lab):
    Pool(lab.url()).close()
    database = postgres.PostgresDatabase(lab.url(), is_read_only=True, warn=lambda _: None)
    with pytest.raises(PoolError, match=r'got invalid input syntax for type integer: "\*\*\*"; name') as caught:
        database.read(lambda connection: connection.exec_driver_sql("SELECT %s::integer", (PASSWORD,)))
    assert PASSWORD not in str(caught.value)
    assert caught.value.__suppress_context__
    database.close()


NETWORK = "dev / ext4 rw 0 0\nserver:/home {} nfs4 rw 0 0\n/dev/sdb {}/scratch xfs rw 0 0\n"


def test_a_network_file_system_is_refused(tmp_path, monkeypatch):
    home = tmp_path / "home of\tall"
    (home / "scratch").mkdir(parents=True)
    place = str(home).replace(" ", r"\040").replace("\t", r"\011")
    (tmp_path / "mounts").write_text(NETWORK.format(place, place))
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mounts")
    with pytest.raises(
        RunFolderError,
        match=rf"run folder on a local disk, got {re.escape(str(home))} on a network file system \(nfs4\), where SQL",
    ):
        Pool(home / "pool.db")
    assert list(home.iterdir()) == [home / "scratch"]
    Pool(home / "scratch" / "pool.db").close()
    shutil.copy(home / "scratch" / "pool.db", home)
    reader = Pool(home / "pool.db", read_only=True)
    assert len(reader) == 0
    reader.close()


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "fuse.s3fs", "lustre", "gpfs", "ceph", "beegfs"]
)
def test_what_is_reached_over_a_network_is_known(kind):
    table = f"/dev/sda / ext4 rw 0 0\nbox:/x /far {kind} rw 0 0\nbroken line\n"
    assert mounts.network_type(Path("/far/run"), table) == kind
    assert mounts.network_type(Path("/farther/run"), table) is None
    for near in ("ext4", "tmpfs", "overlay", "fuse.squashfuse"):
        assert mounts.network_type(Path("/far/run"), table + f"/dev/sdb /far {near} rw 0 0\n") is None


def test_the_systems_own_table_is_read(tmp_path):
    assert mounts.check_local(tmp_path) is None
    assert not mounts.MOUNTS.exists() or mounts.network_type(tmp_path, mounts.MOUNTS.read_text()) is None


def test_answers_are_waited_for_longer_than_the_server_works_on_them():
    assert postgres._SETTINGS["statement_timeout"] == "15s"
    assert line.ANSWER_SECONDS > 15
