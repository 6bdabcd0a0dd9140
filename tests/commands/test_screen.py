"""Progress: seen at a terminal with the time left, not in a log where an answer takes seconds."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from hwdse.commands import screen


@pytest.mark.parametrize(
    ("terminal", "only_live", "seen"), [(True, True, True), (False, True, False), (False, False, True)]
)
def test_bars_are_shown_where_somebody_looks(terminal, only_live, seen, monkeypatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(screen, "_ERRORS", Console(file=out, force_terminal=terminal, width=80))
    with screen.watched(only_live=only_live) as progress:
        progress.start("figures", 2)
        progress.advance()
        progress.advance()
    text = out.getvalue()
    assert ("figures" in text) == ("left" in text) == ("2/2" in text) == seen


def test_warnings_are_shown_even_without_bars(monkeypatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(screen, "_ERRORS", Console(file=out, force_terminal=False, width=80))
    with screen.watched(only_live=True) as progress:
        progress.warn("[x] counts")
    assert out.getvalue() == "note: [x] counts\n"


def test_what_others_print_is_no_answer(capsys, monkeypatch) -> None:
    monkeypatch.setattr(screen, "_ERRORS", Console(file=io.StringIO(), force_terminal=False))
    with screen.watched(only_live=True):
        print("chatter")  # noqa: T201  (what a user's factory may do)
    screen.print_json({"a": 1})
    assert json.loads(capsys.readouterr().out) == {"a": 1}
