"""The pages of the files that users write say what their schemas say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from hwdse.errors import InputError
from hwdse.experiment import Experiment
from hwdse.hardware.reference import sections
from hwdse.reference import BEGIN, END, experiment_reference, with_keys

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "experiments" / "README.md"


def keys_by_section() -> dict[str, set[str]]:
    """Return the keys that the page lists under each heading."""
    parts = re.split(r"^### ", experiment_reference(), flags=re.M)[1:]
    return {part.splitlines()[0]: set(re.findall(r"^\| `(\w+)` \|", part, flags=re.M)) for part in parts}


def test_the_page_is_current() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert with_keys(text) == text, "run python -m hwdse.reference"


def test_every_key_is_listed_with_its_meaning() -> None:
    listed = keys_by_section()
    assert listed.pop("Keys of the file") == set(Experiment.model_fields)
    known = dict(sections(Experiment))
    assert {f"`{title}`" for title in known} == set(listed)
    assert "[quantize.adaround]" in known
    for title, section in known.items():
        assert listed[f"`{title}`"] == set(section.model_fields)
    assert "| None |" not in experiment_reference()


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.toml")), ids=lambda path: path.stem)
def test_every_key_of_an_experiment_is_on_the_page(path: Path) -> None:
    written = tomllib.loads(path.read_text(encoding="utf-8"))
    if "rates" in written:
        return  # a device of an experiment
    listed = keys_by_section()
    assert set(written) <= listed["Keys of the file"]
    for section, keys in written.items():
        if isinstance(keys, dict):
            assert set(keys) <= listed[f"`[{section}]`"]


def test_types_bounds_and_defaults_are_said() -> None:
    text = experiment_reference()
    for row in (
        "| `devices` | list of text | a fault | ",
        "| `seed` | whole number, at least 0 | `0` | ",
        "| `seconds` | number, more than 0 |  | ",
        "| `tolerance` | number, at least 0, less than 1 | `0.0` | ",
        '| `loss` | `kl`, `jsd`, `cosine`, `fisher`, `difficulty` | `"kl"` | ',
        "| `fixed` | table of text | `{}` | ",
        "| `by_block` | true or false | `false` | ",
    ):
        assert f"\n{row}" in text


@pytest.mark.parametrize("page", ["no marker", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{END}", f"{BEGIN}{BEGIN}{END}"])
def test_a_page_without_its_markers_is_refused(page: str) -> None:
    with pytest.raises(InputError, match=r"expected <!-- keys: .* once each, got another page"):
        with_keys(page)
