"""Built-in and foreign parts go the same way."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from hwdse.calibrate import Points, calibrator
from hwdse.calibrate.minmax import calibrate
from hwdse.errors import InputError
from hwdse.formats import Levels, Scheme, parse
from hwdse.plugins import load_plugin, plugin_names
from tests.installed import install

GROUPS = {
    "hwdse.calibrators": {"minmax", "mse", "percentile"},
    "hwdse.sensitivities": {"cosine", "jsd", "kl", "sqnr_db"},
    "hwdse.searchers": {
        *("adaptive", "annealing", "exact", "gp", "greedy", "greedy_sensitivity"),
        *("hull", "milp", "nsga2", "nsga3", "random", "tpe"),
    },
    "hwdse.cost_models": {"activation_kib", "bops_g", "energy_mj", "latency_ms", "memory_kib", "size_kib"},
}


@pytest.mark.parametrize("group", GROUPS)
def test_built_in_parts_are_found_by_entry_point(group: str) -> None:
    assert set(plugin_names(group)) >= GROUPS[group]
    assert list(plugin_names(group)) == sorted(plugin_names(group))
    for name in GROUPS[group]:
        assert load_plugin(group, name) is load_plugin(group, name)
    assert load_plugin("hwdse.calibrators", "minmax") is calibrate


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"expected one of the installed calibrators \(.*minmax.*\), got 'median'"):
        calibrator("median")
    with pytest.raises(InputError, match=r"expected one of the installed cost models \(.*size_kib.*\), got 'price'"):
        load_plugin("hwdse.cost_models", "price")
    with pytest.raises(InputError, match=r"expected one of the installed nothings \(none\), got 'x'"):
        load_plugin("hwdse.nothings", "x")


def test_a_foreign_calibrator_is_installed_by_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_range.py").write_text(
        "def calibrate(distribution, levels):\n    return distribution.minimum / 2, distribution.maximum / 2\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "half-range", {"hwdse.calibrators": {"half": "half_range:calibrate"}})
    assert "half" in plugin_names("hwdse.calibrators")
    rows = Points(torch.tensor([[-1.0, 3.0]]))
    try:
        assert calibrator("half")(rows, Levels.of_weights(parse("int8"), Scheme())) == (-0.5, 1.5)
    finally:
        load_plugin.cache_clear()
        sys.modules.pop("half_range", None)
