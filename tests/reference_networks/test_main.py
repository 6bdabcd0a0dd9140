"""``python -m hwdse.networks``: writes graphs and says what they hold."""

import hwdse.networks.__main__ as command
from hwdse.networks import layer_graph
from hwdse.networks.store import read_graph


def test_graphs_are_written_and_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "path_of", lambda name: tmp_path / name)
    assert command.main(["resnet8", "ds_cnn"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"resnet8", "ds_cnn"}
    assert read_graph(tmp_path / "resnet8") == layer_graph("resnet8")
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["network", "layers", "MACs", "parameters"]
    # 78,186 trainable parameters; each of 7 batch norms takes 2 per channel, of 240 channels, into its convolution.
    assert [row.split() for row in rows] == [
        ["resnet8", "10", "12,501,632", "77,706"],
        ["ds_cnn", "10", "2,656,768", "22,604"],
    ]


def test_an_unknown_name_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "path_of", lambda name: tmp_path / name)
    assert command.main(["resnet80"]) == 2
    assert "error: expected a reference network, got 'resnet80'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_network_is_written_if_none_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "path_of", lambda name: tmp_path / name)
    monkeypatch.setattr(command, "NETWORKS", {"resnet8": None})
    assert command.main([]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["resnet8"]
