import pytest
from pydantic import ValidationError

from hwdse.hardware.faults import nested_section, path_of, sentences
from hwdse.hardware.quantity import Fraction, Quantity
from hwdse.hardware.schema import Memory, ProfileFile, Tile


def test_nested_sections_are_found_inside_containers() -> None:
    assert nested_section(ProfileFile.model_fields["memories"].annotation) is Memory
    assert nested_section(ProfileFile.model_fields["tile"].annotation) is Tile
    assert nested_section(ProfileFile.model_fields["name"].annotation) is None


def test_paths_of_lists_and_tables() -> None:
    assert path_of(("memories", 0, "holds", 1)) == "memories[0].holds[1]"


def test_a_fault_of_the_whole_has_no_path() -> None:
    with pytest.raises(ValidationError, match="expected an estimate") as caught:
        Fraction.model_validate({"value": 0.5, "kind": "estimate", "source": "x"})
    sentence = "expected an estimate to give its interval, got no low or no high; add both"
    assert sentences(caught.value, Quantity) == [sentence]
