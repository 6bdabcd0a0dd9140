import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KEY = re.compile(r"\[([A-Z][A-Za-z]+\d{4}[a-z]?)\]_")


def test_every_reference_in_a_docstring_is_in_the_bibliography() -> None:
    bibliography = (ROOT / "hardware_profiles" / "references.bib").read_text(encoding="utf-8")
    entries = re.findall(r"^@\w+\{(\w+),", bibliography, flags=re.MULTILINE)
    cited = {key for path in (ROOT / "hwdse").rglob("*.py") for key in KEY.findall(path.read_text(encoding="utf-8"))}
    assert cited
    assert cited <= set(entries)
    assert len(entries) == len(set(entries))
