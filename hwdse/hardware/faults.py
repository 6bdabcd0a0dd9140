"""Every fault of a profile as one sentence that starts with its path in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

__all__ = ["closest", "nested_section", "path_of", "sentences"]

TYPES = {
    "float_type": "a number",
    "float_parsing": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "finite_number": "a finite number",
    "missing": "a value",
    "string_too_short": "text",
}


def sentences(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return one sentence per fault that validation against ``model`` found."""
    return [
        f"{path_of(fault['loc'])}: {_sentence(fault, model)}" if fault["loc"] else _sentence(fault, model)
        for fault in error.errors(include_url=False)
    ]


def path_of(location: Sequence[int | str]) -> str:
    """Return a location as a path in the file.

    >>> path_of(("rates", 2, "macs_per_cycle", "value"))
    'rates[2].macs_per_cycle.value'
    """
    named = [step for step in location if step != "[key]"]  # pydantic's word for the key of a mapping itself
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in named)
    return steps.removeprefix(".")


def closest(name: str, known: Sequence[str]) -> str:
    """Return a hint that names the closest of ``known``, or all of them.

    >>> closest("mpci", ["mpic", "nvidia_t4"])
    'did you mean mpic?'
    """
    matches = get_close_matches(name, known, n=1)
    return f"did you mean {matches[0]}?" if matches else f"known: {', '.join(known)}"


def nested_section(annotation: Any) -> type[BaseModel] | None:
    """Return the section inside an annotation such as ``tuple[Rate, ...] | None``, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := nested_section(part)) is not None), None)


def _sentence(fault: Mapping[str, Any], model: type[BaseModel]) -> str:
    """Return what was expected and what came."""
    sort, got, context = fault["type"], _shown(fault["input"]), fault.get("ctx", {})
    if sort == "missing":
        return "expected a value, got nothing; add it"
    if sort == "extra_forbidden":
        return f"expected no such key; {closest(str(fault['loc'][-1]), list(_keys(model, fault['loc'][:-1])))}"
    if sort == "value_error":
        return str(context["error"])
    if sort in TYPES:
        return f"expected {TYPES[sort]}, got {got}"
    return f"expected {_bound(sort, context) or fault['msg']}, got {got}"


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
