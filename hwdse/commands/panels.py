"""Help and completion of the command line: verbs by what a user wants, each with its whole line."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

__all__ = ["CHOOSE", "DEPLOY", "DEVICES", "EXPLORE", "SHOW", "Panels", "complete_device"]

EXPLORE = "Explore: which configurations are worth having"
CHOOSE = "Choose: one configuration, or one device"
DEPLOY = "Deploy: from a choice to a file that runs"
SHOW = "Show: what a run found"
DEVICES = "Devices: profiles of chips, and of this one"
_ORDER = (EXPLORE, CHOOSE, DEPLOY, SHOW, DEVICES)


class Panels(TyperGroup):
    """A group of commands whose help lists them under headings."""

    def format_commands(self, _ctx: Any, formatter: Any) -> None:
        """Write a section per heading; no line is cut."""
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in _ORDER}
        for name, command in self.commands.items():
            heading = getattr(command, "rich_help_panel", None) or "Commands"
            sections.setdefault(heading, []).append((name, command.short_help or (command.help or "").split("\n\n")[0]))
        width = max(map(len, self.commands))
        for heading, rows in ((heading, rows) for heading, rows in sections.items() if rows):
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), words) for name, words in rows])


def complete_device(incomplete: str) -> list[str]:
    """Return the profiles whose name starts with what was typed."""
    from hwdse.hardware import list_profiles

    return [name for name in list_profiles() if name.startswith(incomplete)]
