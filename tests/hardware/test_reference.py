import re
from pathlib import Path

import pytest

from hwdse.hardware import profile_paths
from hwdse.hardware.rate import Rate
from hwdse.hardware.reference import reference
from hwdse.hardware.schema import Calibration, Memory, NodeTime, ProfileFile

FOLDER = Path(__file__).parents[2] / "hardware_profiles"


def test_the_readme_is_current() -> None:
    assert (FOLDER / "README.md").read_text() == reference(), "run python -m hwdse.reference"


def test_the_readme_has_every_key() -> None:
    text = reference()
    for section in (ProfileFile, Rate, Memory, NodeTime, Calibration):
        assert all(f"| `{name}` |" in text for name in section.model_fields)
    assert "\n| `from` | text | yes |" in text
    assert "from_" not in text


@pytest.mark.parametrize("path", [path for path in profile_paths().values() if path.parent == FOLDER], ids=str)
def test_every_source_has_an_entry_in_the_bibliography(path: Path) -> None:
    entries = set(re.findall(r"^@\w+\{(\w+),", (FOLDER / "references.bib").read_text(), flags=re.M))
    keys = set(re.findall(r'source = "(\w+)"', path.read_text()))
    assert keys
    if path.with_name(f"{path.stem}_measurements.csv").is_file():
        return  # measured, not cited: its sources say where and how
    assert keys <= entries
