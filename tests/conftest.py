"""Settings of all tests, and the servers that some need."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.postgres import Lab, Server, binaries

# One torch thread per process: several test processes on two cores would wait for each other's threads.
os.environ["OMP_NUM_THREADS"] = "1"

# No deadline: on a busy machine it says nothing about the code. A change lands or not by the same examples every time;
# at a desk they are drawn anew.
settings.register_profile("desk", deadline=None)
settings.register_profile("landing", deadline=None, derandomize=True)
settings.load_profile("landing" if os.environ.get("CI") else "desk")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """Yield a PostgreSQL server."""
    pytest.importorskip("psycopg")
    programs = binaries()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed: there is no initdb in PATH or /usr/lib/postgresql")
    server = Server(programs)
    yield server
    server.remove()


@pytest.fixture
def lab(postgres_server: Server) -> Iterator[Lab]:
    """Yield an empty PostgreSQL database; the server runs, whatever the test did to it."""
    if not postgres_server.runs:
        postgres_server.start()
    yield Lab(postgres_server)
    if not postgres_server.runs:
        postgres_server.start()
