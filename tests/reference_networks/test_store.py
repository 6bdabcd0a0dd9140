"""Layer graphs in files: what comes back is what was written."""

import gzip
import json
from dataclasses import replace

import pytest

from hwdse.errors import InputError
from hwdse.graph import Layer, LayerGraph, LiveSet, Node, Tensor, Value, tie
from hwdse.networks.store import plain, read_graph, write_graph

CONV = Layer(
    "conv",
    "conv",
    "x",
    "y",
    (3, 8, 8),
    (4, 4, 4),
    432,
    weight="conv.weight",
    weight_shape=(4, 3, 3, 3),
    bias_count=4,
    kernel=(3, 3),
    stride=(2, 2),
    bias="conv.bias",
)
PRODUCT = Layer("product", "matmul", "y", "z", (4, 16), (4, 4), 256, second_input="y", second_shape=(16, 4))
LAYERS = (CONV, PRODUCT)
GRAPH = LayerGraph(
    layers=LAYERS,
    tensors=(Tensor("x", (3, 8, 8), "conv"), Tensor("y", (4, 4, 4), "product"), Tensor("z", (4, 4), None)),
    groups=tie(LAYERS),
    edges=((0, 1),),
    live_sets=(LiveSet("conv", ("x", "y")), LiveSet("product", ("y", "z"))),
    other_parameters=7,
    nodes=(Node("gelu", "gelu", 16), Node("add", "add", 16, "relu")),
    values=(Value("x", 192, layers=("conv",)), Value("y", 64, layer="conv", layers=("product",), nodes=("gelu",))),
)


class WithMore(LayerGraph):
    """A graph that carries something else, as a capture does."""


def test_what_is_read_equals_what_was_written(tmp_path):
    path = write_graph(tmp_path / "a.json.gz", GRAPH)
    read = read_graph(path)
    assert read == GRAPH
    assert read.layer_index == {"conv": 0, "product": 1}
    assert read.layers[0].op_class == "conv"


@pytest.mark.parametrize(
    "other",
    [
        replace(GRAPH, other_parameters=8),
        replace(GRAPH, edges=()),
        replace(GRAPH, nodes=GRAPH.nodes[:1]),
        replace(GRAPH, layers=(replace(CONV, stride=(1, 1)), PRODUCT)),
    ],
)
def test_graphs_that_differ_stay_different(other, tmp_path):
    assert read_graph(write_graph(tmp_path / "a.json.gz", other)) != GRAPH


def test_the_same_graph_gives_the_same_bytes(tmp_path):
    first, second = (write_graph(tmp_path / name, GRAPH) for name in ("a.json.gz", "b.json.gz"))
    assert first.read_bytes() == second.read_bytes()
    # Bytes 4 to 7 of a gzip file are the time of writing (RFC 1952, section 2.3.1).
    assert first.read_bytes()[4:8] == bytes(4)


def test_only_the_graph_is_kept(tmp_path):
    more = WithMore(GRAPH.layers, GRAPH.tensors, GRAPH.groups)
    assert type(plain(more)) is LayerGraph
    read = read_graph(write_graph(tmp_path / "a.json.gz", more))
    assert read == LayerGraph(GRAPH.layers, GRAPH.tensors, GRAPH.groups)


def test_what_follows_from_the_rest_is_not_in_the_file(tmp_path):
    content = json.loads(gzip.decompress(write_graph(tmp_path / "a.json.gz", GRAPH).read_bytes()))
    assert set(content) == {
        "layers", "tensors", "groups", "edges", "live_sets", "other_parameters", "nodes", "values"
    }  # fmt: skip
    assert content["layers"][0]["weight_shape"] == [4, 3, 3, 3]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "FileNotFoundError"),
        (b"{}", "BadGzipFile"),
        (gzip.compress(b"{}")[:-9], "EOFError|error"),
        (gzip.compress(b"{"), "ValidationError"),
        (gzip.compress(b"{}"), "ValidationError"),
        (gzip.compress(b'{"layers": [{"name": 3}], "tensors": [], "groups": []}'), "ValidationError"),
    ],
    ids=["absent", "no gzip", "cut off", "no JSON", "nothing in it", "no graph"],  # gzip writes the time into its bytes
)
def test_a_damaged_file_gets_one_sentence(content, reason, tmp_path):
    path = tmp_path / "a.json.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"expected a layer graph in .*a\.json\.gz, got ({reason}).*; write the file"):
        read_graph(path)
