"""A profile's file with new sections: all else stays as it was, and nothing is written that has a fault."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest

from hwdse.errors import ProfileError
from hwdse.hardware import HardwareProfile, check, load_profile, profile_paths
from hwdse.networks import layer_graph
from hwdse.published import PublishedRow, published_path, read_rows
from hwdse.published.result import fitted_profile
from hwdse.published.write import profile_text, write_profile

SHIPPED = sorted(name for name in profile_paths() if published_path(name) is not None)
SECTIONS = ("[calibration", "[accuracy")


def original(name: str) -> str:
    return profile_paths()[name].read_text(encoding="utf-8")


def fitted(name: str, *, source: str | None = None, named: str | None = None) -> HardwareProfile:
    """Return a profile fitted to its rows in coefficients of several sorts."""
    path = published_path(name)
    assert path is not None
    rows = [row.model_copy(update={"source": source or row.source}) for row in read_rows(path)]
    kept: list[PublishedRow] = rows
    found = fitted_profile(load_profile(name), kept, layer_graph, names=["compute", "us_per_layer", rows[0].label])
    spec = found.profile.spec
    return HardwareProfile(spec.model_copy(update={"name": named or name}), found.profile.table)


def without_sections(text: str) -> str:
    """Return the text without the lines of both sections, which every shipped file ends with."""
    kept, inside = [], False
    for line in text.splitlines(keepends=True):
        inside = line.startswith(SECTIONS) or (inside and not line.startswith("["))
        kept += [] if inside else [line]
    return "".join(kept)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_is_written_as_it_is(name: str) -> None:
    assert profile_text(load_profile(name), original(name)) == original(name)


@pytest.mark.parametrize("name", SHIPPED)
def test_all_but_the_two_sections_stays_byte_for_byte(name: str, tmp_path: Path) -> None:
    profile, text = fitted(name), original(name)
    path = tmp_path / f"{name}.toml"
    if profile.spec.table is not None:
        shutil.copy(profile_paths()[name].with_name(profile.spec.table), tmp_path)
    assert write_profile(path, profile, text) == path
    written = path.read_text(encoding="utf-8")
    assert without_sections(written) == without_sections(text)
    assert check(path) == ()
    assert load_profile(str(path)).spec == profile.spec


@pytest.mark.parametrize("name", ["stm32h7a3", "hailo8", "esp32s3"])
def test_sections_are_replaced_and_not_doubled(name: str) -> None:
    profile = fitted(name)
    once = profile_text(profile, original(name))
    assert profile_text(profile, once) == once
    for header in ("[calibration]", "[calibration.precisions]", "[accuracy]"):
        assert once.splitlines().count(header) == 1
    assert profile_text(load_profile(name), once) == original(name)


def test_a_new_source_is_added_once(tmp_path: Path) -> None:
    profile = fitted("stm32h7a3", source="Lab2024")
    once = profile_text(profile, original("stm32h7a3"))
    line = 'Lab2024 = "published figures of whole networks on STM32H7A3, Cortex-M7 at 280 MHz"\n'
    assert once.count(line) == 1
    assert without_sections(once).replace(line, "") == without_sections(original("stm32h7a3"))
    assert profile_text(profile, once) == once
    path = write_profile(tmp_path / "stm32h7a3.toml", profile, original("stm32h7a3"))
    assert check(path) == ()
    assert list(load_profile(str(path)).spec.sources) == list(profile.spec.sources)


def test_the_name_is_the_profiles(tmp_path: Path) -> None:
    profile = fitted("stm32h7a3", named="mine")
    path = write_profile(tmp_path / "mine.toml", profile, original("stm32h7a3"))
    written = path.read_text()
    assert without_sections(written) == without_sections(original("stm32h7a3")).replace(
        'name = "stm32h7a3"\n', 'name = "mine"\n', 1
    )
    assert load_profile(str(path)).spec == profile.spec


def test_sections_in_the_middle_go_to_the_end_and_comments_stay() -> None:
    """Comments between others' sections, above a header and inside, and a name that is also that of a memory."""
    head = '# A chip.\nschema_version = 1\nname = "stm32h7a3" \nnote = "[accuracy] is below"\n\n'
    head = head.replace('" \n', '"\n')
    sources = '[sources]\nMLPerfTiny12 = "b" # the first\n\n'
    memory = '# Fast.\n# And small.\n[[memories]]\nname = "stm32h7a3"  # the same\n\n'
    power = "[power]\n# in all\nactive_mw = 3\n"
    old = "[calibration]\ncompute = 3\n\n[calibration.precisions]\nW8A8 = 1\n\n[accuracy]\nbasis = 'fitted'\n\n"
    profile = fitted("stm32h7a3", named="mine")
    sections = profile_text(profile, 'name = "x"\n').split("\n\n", 1)[1]
    assert sections.startswith("[calibration]\n")
    known = HardwareProfile(profile.spec.model_copy(update={"sources": {"MLPerfTiny12": "b"}}), profile.table)
    written = profile_text(known, head + sources + old + memory + power)
    assert written == head.replace("stm32h7a3", "mine") + sources + memory + power + "\n" + sections


def test_what_is_written_is_what_the_profile_says() -> None:
    profile = fitted("snapdragon_8gen3")
    read = tomllib.loads(profile_text(profile, original("snapdragon_8gen3")))
    assert profile.spec.calibration is not None
    assert profile.spec.accuracy is not None
    calibration = profile.spec.calibration.model_dump(mode="json", exclude_none=True)
    assert read["calibration"] == calibration
    assert read["accuracy"] == profile.spec.accuracy.model_dump(mode="json", exclude_none=True)
    assert set(calibration) == {"compute", "us_per_layer", "precisions"}
    raw = tomllib.loads(original("snapdragon_8gen3"))
    assert {k: v for k, v in read.items() if k not in ("calibration", "accuracy")} == {
        k: v for k, v in raw.items() if k not in ("calibration", "accuracy")
    }


def test_a_section_that_is_gone_is_taken_out() -> None:
    profile = load_profile("stm32h7a3")
    spec = profile.spec.model_copy(update={"calibration": None, "accuracy": None})
    written = profile_text(HardwareProfile(spec, profile.table), original("stm32h7a3"))
    assert written == without_sections(original("stm32h7a3")).rstrip("\n") + "\n"


# Faults.


def test_nothing_is_written_on_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    broken = original("stm32h7a3").replace('kind = "mcu"', 'kind = "toaster"')
    with pytest.raises(ProfileError, match=r"mine\.toml has 1 fault:\n  kind: expected ") as error:
        write_profile(path, fitted("stm32h7a3", named="mine"), broken)
    assert str(tmp_path) in str(error.value)
    assert list(tmp_path.iterdir()) == []
    path.write_text("as it was")
    with pytest.raises(ProfileError, match="has 1 fault"):
        write_profile(path, fitted("stm32h7a3", named="mine"), broken)
    assert path.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_is_not_the_files_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"name: expected the file's name \(other\), got 'mine'; rename one of them"):
        write_profile(tmp_path / "other.toml", fitted("stm32h7a3", named="mine"), original("stm32h7a3"))
    assert list(tmp_path.iterdir()) == []


def test_a_table_must_lie_beside(tmp_path: Path) -> None:
    profile = fitted("nvidia_t4")
    with pytest.raises(ProfileError, match=r"nvidia_t4\.toml has 1 fault:\n  table: .*nvidia_t4\.csv"):
        write_profile(tmp_path / "nvidia_t4.toml", profile, original("nvidia_t4"))
    assert list(tmp_path.iterdir()) == []
    shutil.copy(profile_paths()["nvidia_t4"].with_name("nvidia_t4.csv"), tmp_path)
    assert check(write_profile(tmp_path / "nvidia_t4.toml", profile, original("nvidia_t4"))) == ()
