"""What the README shows to be typed is right as it stands."""

from __future__ import annotations

import re
from pathlib import Path

from hwdse.experiment import load_experiment

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_experiment_file_has_no_fault(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    path = tmp_path / "my_net.toml"
    path.write_text(shown)
    experiment = load_experiment(path)
    assert experiment.name == "my_net"
    assert experiment.objectives.maximize == ["accuracy"]
