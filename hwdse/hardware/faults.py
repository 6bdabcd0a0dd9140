"""Every fault of a profile as one sentence that starts with its path in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from typing import Any, Literal, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError

__all__ = ["closest", "nested_section", "path_of", "respelt", "sentences"]

TYPES = {
    "float_type": "a number",
    "float_parsing": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "finite_number": "a finite number",
    "missing": "a value",
    "string_too_short": "text",
}

MISSPELT = 0.75
"""Similarity from which on an unknown key is taken for a known one."""


def sentences(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return one sentence per fault that validation against ``model`` found.

    A list whose entries have faults counts as too short, too; that says nothing new and is left out.
    """
    faults = error.errors(include_url=False)
    places = [fault["loc"] for fault in faults]
    return [
        f"{path_of(fault['loc'])}: {_sentence(fault, model)}" if fault["loc"] else _sentence(fault, model)
        for fault in faults
        if fault["type"] != "too_short" or not any(_is_inside(place, fault["loc"]) for place in places)
    ]


def respelt(raw: Mapping[str, Any], error: ValidationError, model: type[BaseModel]) -> tuple[dict[str, Any], list[str]]:
    """Return ``raw`` with misspelt keys put right, and a sentence for each of them.

    A key that is not known is misspelt where the closest known one is missing. What it holds can then be checked, and
    the known key is no second fault.
    """
    mended, said = deepcopy(dict(raw)), []
    for fault in error.errors(include_url=False):
        if fault["type"] != "extra_forbidden":
            continue
        *steps, key = fault["loc"]
        part = _part(mended, steps)
        matches = get_close_matches(str(key), list(_keys(model, steps)), n=1, cutoff=MISSPELT)
        if matches and matches[0] not in part:
            part[matches[0]] = part.pop(str(key))
            said.append(f"{path_of(fault['loc'])}: {_sentence(fault, model)}")
    return mended, said


def path_of(location: Sequence[int | str]) -> str:
    """Return a location as a path in the file.

    >>> path_of(("rates", 2, "macs_per_cycle", "value"))
    'rates[2].macs_per_cycle.value'
    """
    named = [step for step in location if step != "[key]"]  # pydantic's word for the key of a mapping itself
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in named)
    return steps.removeprefix(".")


def closest(name: str, known: Sequence[str], *, most: int = 1) -> str:
    """Return a hint that names up to ``most`` of ``known``, the closest first, or all where none is close.

    >>> closest("mpci", ["mpic", "nvidia_t4"])
    'did you mean mpic?'
    >>> closest("nvidia_t3", ["mpic", "nvidia_t2", "nvidia_t4"], most=3)
    'did you mean nvidia_t4 or nvidia_t2?'
    """
    matches = get_close_matches(name, known, n=most)
    return f"did you mean {' or '.join(matches)}?" if matches else f"known: {', '.join(known)}"


def nested_section(annotation: Any) -> type[BaseModel] | None:
    """Return the section inside an annotation such as ``tuple[Rate, ...] | None``, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := nested_section(part)) is not None), None)


def _is_inside(place: Sequence[int | str], outer: Sequence[int | str]) -> bool:
    """Return whether a location is inside another one."""
    return len(place) > len(outer) and place[: len(outer)] == outer


def _part(raw: dict[str, Any], steps: Sequence[int | str]) -> dict[str, Any]:
    """Return the table of a file at a location."""
    part: Any = raw
    for step in steps:
        part = part[step]
    return cast(dict[str, Any], part)


def _sentence(fault: Mapping[str, Any], model: type[BaseModel]) -> str:
    """Return what was expected and what came."""
    sort, got, context = fault["type"], _shown(fault["input"]), fault.get("ctx", {})
    if sort == "missing":
        return _missing(path_of(fault["loc"]), _annotation(model, fault["loc"]))
    if sort == "extra_forbidden":
        return f"expected no such key; {closest(str(fault['loc'][-1]), list(_keys(model, fault['loc'][:-1])))}"
    if sort == "value_error":
        return str(context["error"])
    if sort in TYPES:
        return f"expected {TYPES[sort]}, got {got}"
    return f"expected {_bound(sort, context) or fault['msg']}, got {got}"


def _missing(path: str, annotation: Any) -> str:
    """Return what was expected at a path where nothing is."""
    if get_origin(annotation) is Literal:
        return f"expected {' or '.join(map(repr, get_args(annotation)))}, got nothing; add it"
    section = nested_section(annotation)
    if section is None:
        return "expected a value, got nothing; add it"
    needed = [field.alias or name for name, field in section.model_fields.items() if field.is_required()]
    header = f"[[{path}]]" if get_origin(annotation) in (list, tuple) else f"[{path}]"
    return f"expected a table {header} with {', '.join(needed) or 'its keys'}, got nothing; add it"


def _bound(sort: str, context: Mapping[str, Any]) -> str | None:
    """Return what a violated bound asks for, or ``None`` for faults that are not bounds."""
    match sort:
        case "greater_than":
            return "a positive number" if context["gt"] == 0 else f"a number above {context['gt']:g}"
        case "greater_than_equal":
            return f"a number of at least {context['ge']:g}"
        case "less_than_equal":
            return f"a number of at most {context['le']:g}"
        case "enum" | "literal_error":
            return str(context["expected"])
        case "too_short":
            return f"at least {context['min_length']} entry"
        case "string_pattern_mismatch":
            return f"text that matches {context['pattern']}"
        case _:
            return None


def _annotation(model: type[BaseModel], location: Sequence[int | str]) -> Any:
    """Return what the key at ``location`` is annotated with, ``None`` where it is not known."""
    section: type[BaseModel] | None = model
    annotation: Any = None
    for step in location:
        if not isinstance(step, str):
            continue
        field = section.model_fields.get(step) if section is not None else None
        annotation = field.annotation if field is not None else None
        section = nested_section(annotation)
    return annotation


def _keys(model: type[BaseModel], location: Sequence[int | str]) -> Iterator[str]:
    """Yield the keys that the section at ``location`` knows."""
    section: type[BaseModel] | None = model
    for step in location:
        if section is not None and isinstance(step, str) and step in section.model_fields:
            section = nested_section(section.model_fields[step].annotation)
    fields = section.model_fields if section is not None else {}
    yield from (field.alias or name for name, field in fields.items())


def _shown(value: object, *, width: int = 60) -> str:
    """Return a value as a user wrote it, cut to ``width`` characters."""
    text = repr(value)
    return text if len(text) <= width else f"{text[: width - 3]}..."
