"""Who listens to a crew, and things that happen once."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import pytest

from tests.listener import Listener

# Clusters of tests are nobody else's; known before anything imports Ray.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", uuid4().hex * 2)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def once(tmp_path):
    """Return a function that makes a function that is True the first time that any process calls it."""

    def make(name: str = "happened"):
        marker: Path = tmp_path / name

        def is_first() -> bool:
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return False
            return True

        is_first.marker = marker
        return is_first

    return make
