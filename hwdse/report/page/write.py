"""Writes the page of a run: one file with its style, its data and its scripts, that asks the network for nothing."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path

from hwdse.files import write_text
from hwdse.report.page.markup import banners, chips, lede, picks, provenance
from hwdse.report.page.payload import page_payload
from hwdse.report.page.state import RunState
from hwdse.report.tables import RunTables

__all__ = ["page_text", "write_page"]

SCRIPTS = ("words.js", "model.js", "charts.js", "page.js")
NO_SCRIPT = '<noscript><p class="banner">The views below need JavaScript; the picks above do not.</p></noscript>'


def write_page(run: Path, out: Path | None = None) -> tuple[Path, RunState]:
    """Write the page of the run folder ``run`` to ``out``, by default ``run/report.html``.

    Returns
    -------
    tuple[Path, RunState]
        Where the page lies, and how far the run came: an unfinished, empty or infeasible run has a page that says so.

    Raises
    ------
    RunFolderError
        If ``run`` is no run folder, or a file is damaged; then no page is written.
    """
    state = RunState.of(run)
    return write_text(out or run / "report.html", page_text(state)), state


def page_text(state: RunState) -> str:
    """Return the page as text; the same tables give the same text."""
    tables = state.tables
    shows = tables is not None and any(not device.emptiness for device in tables.results.values())
    script, library = ("".join(map(_asset, SCRIPTS)), _plotly()) if shows else ("", "")
    parts = {
        "policy": _policy(script, library),
        "title": escape(f"{state.name}: hwdse report"),
        "css": _asset("page.css"),
        "name": escape(state.name),
        "lede": lede(tables) if tables is not None else "",
        "banners": banners(state.sentences),
        "picks": picks(tables) if tables is not None else "",
        "explore": "",
        "provenance": provenance(state),
        "scripts": "",
    }
    if tables is not None and shows:
        parts["explore"] = NO_SCRIPT + _filled(_asset("explore.html"), {"chips": chips(tables)})
        parts["scripts"] = _scripts(tables, script, library)
    return _filled(_asset("page.html"), parts)


def _asset(name: str) -> str:
    """Return a file of this package as text."""
    return (files("hwdse.report.page") / name).read_text(encoding="utf-8")


def _filled(template: str, parts: Mapping[str, str]) -> str:
    """Return a template with each ``{{name}}`` replaced, once: what is put in is not searched.

    >>> _filled("<b>{{a}}</b>{{b}}", {"a": "{{b}}", "b": "!"})
    '<b>{{b}}</b>!'
    """
    first, *rest = template.split("{{")
    return first + "".join(parts[name] + text for name, text in (piece.split("}}", 1) for piece in rest))


def _policy(*scripts: str) -> str:
    """Return the content security policy: no connections, and no script but these."""
    hashes = " ".join(f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'" for text in scripts)
    rules = {
        "default-src": "'none'",
        "script-src": hashes,
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {source}" for name, source in rules.items())


def _scripts(tables: RunTables, script: str, library: str) -> str:
    """Return the data and the drawing library, both packed until the first paint is done, and the page's own script."""
    data = json.dumps(page_payload(tables), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    licence = library[: library.index("*/")].strip("/* \n")
    return (
        f"<!--\n{licence}\n-->\n"
        f'<script type="text/plain" id="data">{_packed(data)}</script>\n'
        f'<script type="text/plain" id="plotly">{_packed(library)}</script>\n'
        f"<script>{script}</script>"
    )


def _packed(text: str) -> str:
    """Return a text as base64 of gzip: a quarter of it, and no letter that would end an element.

    >>> gzip.decompress(base64.b64decode(_packed("</script>"))).decode()
    '</script>'
    """
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode()


def _plotly() -> str:
    """Return the drawing library's script."""
    return (files("plotly.package_data") / "plotly.min.js").read_text(encoding="utf-8")
