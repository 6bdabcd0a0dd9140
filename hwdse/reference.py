"""The references of the files that users write, from their schemas, so that the two cannot disagree.

``python -m hwdse.reference`` writes ``hardware_profiles/README.md`` and the keys in ``experiments/README.md``.
"""

from __future__ import annotations

import json
from pathlib import Path

from annotated_types import Ge, Gt, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hwdse.errors import InputError
from hwdse.experiment import Experiment
from hwdse.files import write_text
from hwdse.hardware.reference import reference, sections, summary, type_words

__all__ = ["experiment_reference", "main", "with_keys"]

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- keys: python -m hwdse.reference -->", "<!-- end of keys -->"


def experiment_reference() -> str:
    """Return the tables of all keys of an experiment file in Markdown, a heading per section."""
    parts = [f"### Keys of the file\n\n{_keys(Experiment)}"]
    parts += [f"### `{title}`\n\n{summary(section)}\n\n{_keys(section)}" for title, section in sections(Experiment)]
    return "\n\n".join(parts)


def with_keys(page: str) -> str:
    """Return the text of a page with what stands between its markers written anew.

    Raises
    ------
    InputError
        If the page does not have the markers, once each and in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in after:
        raise InputError(f"expected {BEGIN} and {END} once each, got another page; put them where the keys belong")
    return f"{before}{BEGIN}\n\n{experiment_reference()}\n\n{END}{after}"


def main() -> None:
    """Write both references."""
    write_text(ROOT / "hardware_profiles" / "README.md", reference())
    page = ROOT / "experiments" / "README.md"
    write_text(page, with_keys(page.read_text(encoding="utf-8")))


def _keys(section: type[BaseModel]) -> str:
    """Return a table of the keys of a section."""
    rows = [
        f"| `{name}` | {_type(field)} | {_default(field)} | {field.description} |"
        for name, field in section.model_fields.items()
    ]
    return "\n".join(["| key | type | if absent | meaning |", "|---|---|---|---|", *rows])


def _type(field: FieldInfo) -> str:
    """Return what a key holds, in words, with its bounds."""
    words = type_words(field.annotation)
    for bound in field.metadata:
        if isinstance(bound, Ge):
            words += f", at least {bound.ge}"
        elif isinstance(bound, Gt):
            words += f", more than {bound.gt}"
        elif isinstance(bound, Lt):
            words += f", less than {bound.lt}"
    return words


def _default(field: FieldInfo) -> str:
    """Return what holds where a key is absent, as it would stand in the file."""
    if field.is_required():
        return "a fault"
    if field.default is None or isinstance(field.default, BaseModel):
        return ""
    return f"`{json.dumps(field.default)}`"


if __name__ == "__main__":
    main()
