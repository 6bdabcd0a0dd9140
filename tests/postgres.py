"""A PostgreSQL server of one's own that tests start, kill and start again."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

USER = "hwdse"
PASSWORD = "geheim/p@ss:w%rd+1"
"""Nothing that is written or printed may hold it, in any spelling; many of its characters mean something in a URL."""

SPELLINGS = (PASSWORD, quote(PASSWORD), quote(PASSWORD, safe=""))


def binaries() -> Path | None:
    """Return the folder of the server's programs; ``None`` where there is none."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if asked := shutil.which("pg_config"):
        folders.append(Path(subprocess.check_output([asked, "--bindir"], text=True).strip()))
    return next((f for f in folders if (f / "initdb").is_file() and (f / "postgres").is_file()), None)


def account() -> dict[str, Any]:
    """Return whom the server runs as: it refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = next(name for name in ("postgres", "nobody") if name in names)
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


class Server:
    """A server on a free port of this machine, with a password."""

    def __init__(self, programs: Path) -> None:
        self._programs, self._account = programs, account()
        self.folder = Path(tempfile.mkdtemp(prefix="hwdse-postgres-"))
        self._data = self.folder / "data"
        (self.folder / "password").write_text(PASSWORD)
        if self._account:
            for path in (self.folder, self.folder / "password"):
                shutil.chown(path, self._account["user"], self._account["group"])
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        make = [programs / "initdb", "-D", self._data, "-U", USER, "-A", "scram-sha-256", "-E", "UTF8", "--no-sync"]
        self._run(*make, f"--pwfile={self.folder / 'password'}")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def _run(self, *command: object) -> None:
        subprocess.run(list(map(str, command)), check=True, capture_output=True, cwd=self.folder, **self._account)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        settings = ("listen_addresses=127.0.0.1", f"port={self.port}", "unix_socket_directories=", "log_statement=none")
        options = [word for setting in settings for word in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self._data), *options],
                stdout=log, stderr=log, cwd=self.folder, **self._account,
            )  # fmt: skip
        limit = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < limit, "the server does not answer"
            time.sleep(0.05)

    def _answers(self) -> bool:
        import psycopg

        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End the server and all of its processes at once, as a power cut does to them."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)  # or it would clean up after its children
        for child in children(self._process.pid):
            os.kill(child, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._process = None

    def remove(self) -> None:
        """End the server and delete what it wrote."""
        if self.runs:
            self.kill()
        shutil.rmtree(self.folder)

    def execute(self, statement: str, values: Sequence[object] = (), *, database: str = "postgres") -> list[Any]:
        """Run one statement and return its rows."""
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


def children(process: int) -> list[int]:
    """Return the identifiers of a process's children."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == process:
            found.append(int(stat.parent.name))
    return found


class Lab:
    """An empty database on a server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.name = f"lab_{secrets.token_hex(4)}"
        server.execute(f"CREATE DATABASE {self.name}")

    def url(self, *, user: str = USER, password: str = PASSWORD, port: int | None = None) -> str:
        """Return the URL of the database."""
        place = f"127.0.0.1:{port or self.server.port}"
        return f"postgresql://{user}:{quote(password, safe='')}@{place}/{self.name}"

    def execute(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        """Run one statement in the database and return its rows."""
        return self.server.execute(statement, values, database=self.name)

    def reader(self) -> str:
        """Make somebody who may only read what is there, and return the URL for them."""
        user = f"reader_{secrets.token_hex(4)}"
        self.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'only-reads'")
        self.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        self.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}")
        return self.url(user=user, password="only-reads")
