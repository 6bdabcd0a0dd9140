"""The small Llama: its formulas step by step, its capture, and its published loss where weights and stories are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hwdse.capture import Capture, capture
from hwdse.cost import cost_table
from hwdse.errors import InputError
from hwdse.evaluate.evaluator import Evaluator
from hwdse.evaluate.metrics import evaluation_of
from hwdse.experiment import Experiment, load_experiment
from hwdse.factories import load_factory
from hwdse.formats import Precision, Scheme
from hwdse.hardware import load_profile
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from hwdse.quantize.recipe import Recipe

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
HEADS, SHARED, SIZE = 8, 4, 8


def made(name: str) -> Any:
    """Return what a factory of the experiment makes."""
    return load_factory(name, folder=EXPERIMENTS)()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Return the trained network; where the data are absent, one with random weights of such sizes."""
    try:
        network: nn.Module = made("models.py:stories260k")
    except InputError:
        network = made("models.py:Stories260K").eval()
        generator = torch.Generator().manual_seed(5)
        for parameter in network.parameters():
            spread = 0.3 if parameter.ndim == 2 else 0.2
            nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=spread, generator=generator)
    return network


@pytest.fixture(scope="module")
def captured(model: nn.Module) -> Capture:
    return capture(model, made("models.py:stories260k_example"), dynamic_dims=(0, 1))


@pytest.fixture(scope="module")
def program(captured: Capture) -> Program:
    return Program.of(captured)


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return load_experiment(EXPERIMENTS / "stories260k.toml")


def words(samples: int, length: int) -> torch.Tensor:
    return torch.randint(512, (samples, length), generator=torch.Generator().manual_seed(length))


def network_of(program: Program, tokens: torch.Tensor) -> QuantizedNetwork:
    """Return the network calibrated on ``tokens``, with symmetric weights, one scale per row."""
    recipe = Recipe(weight_ranges="minmax", activation_ranges="minmax")
    return QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, [tokens]), recipe=recipe)


def by_hand(state: dict[str, np.ndarray], tokens: list[int]) -> np.ndarray:
    """Return the logits of one story, token by token and head by head, in double precision."""

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean() + 1e-5) * state[f"{name}.weight"]

    def turned(x: np.ndarray, position: int) -> np.ndarray:
        pairs = x.reshape(-1, SIZE // 2, 2) @ [1, 1j]  # a pair of features is one complex number
        pairs = pairs * np.exp(1j * position * 10000.0 ** (-2.0 * np.arange(SIZE // 2) / SIZE))
        return np.stack([pairs.real, pairs.imag], axis=-1).reshape(-1, SIZE)

    stream = [state["tok.weight"][token] for token in tokens]
    for block in (f"blocks.{i}" for i in range(5)):
        w = {name: state[f"{block}.{name}.weight"] for name in ("wq", "wk", "wv", "wo", "w1", "w2", "w3")}
        keys: list[np.ndarray] = []
        values: list[np.ndarray] = []
        for position, x in enumerate(stream):
            y = norm(x, f"{block}.n1")
            keys.append(turned(w["wk"] @ y, position))
            values.append((w["wv"] @ y).reshape(SHARED, SIZE))
            mixed = []
            for head, query in enumerate(turned(w["wq"] @ y, position)):
                shared = head // (HEADS // SHARED)
                shares = np.exp([query @ key[shared] / np.sqrt(SIZE) for key in keys])
                mixed.append(sum(s * v[shared] for s, v in zip(shares / shares.sum(), values, strict=True)))
            after = x + w["wo"] @ np.concatenate(mixed)
            y = norm(after, f"{block}.n2")
            gate = w["w1"] @ y
            stream[position] = after + w["w2"] @ (gate / (1.0 + np.exp(-gate)) * (w["w3"] @ y))
    return np.stack([state["tok.weight"] @ norm(x, "norm") for x in stream])


def test_the_network_computes_its_formulas(model: nn.Module) -> None:
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    tokens = words(2, 19)
    with torch.no_grad():
        logits = model(tokens).double().numpy()
    assert logits.std() > 0.5
    for story, expected in zip(tokens.tolist(), logits, strict=True):
        np.testing.assert_allclose(by_hand(state, story), expected, rtol=1e-3, atol=1e-3)


def test_layers_and_groups_are_those_of_the_architecture(captured: Capture) -> None:
    names = [layer.name for layer in captured.layers]
    block = ["wq", "wk", "wv", "matmul", "matmul_1", "wo", "w1", "w3", "w2"]
    assert names[:9] == [f"blocks.0.{part}" for part in block]
    assert len(names) == 5 * len(block) + 1
    assert [group.layers for group in captured.groups[:6]] == [
        tuple(f"blocks.0.{part}" for part in parts)
        for parts in (("wq", "wk", "wv"), ("matmul",), ("matmul_1",), ("wo",), ("w1", "w3"), ("w2",))
    ]
    assert len(captured.groups) == 5 * 6 + 1
    assert [layer.name for layer in captured.layers if layer.op == "matmul"] == [
        f"blocks.{i // 2}.matmul{f'_{i}' if i else ''}" for i in range(10)
    ]


def test_counts_are_those_worked_out_by_hand(captured: Capture) -> None:
    projections = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 172
    assert captured.parameter_count == 512 * 64 + 5 * (projections + 2 * 64) + 64 == 260_032
    assert captured.other_parameters == 11 * 64  # the norms; embedding and head are one weight
    assert captured.macs == 128 * (5 * projections + 512 * 64) + 5 * 2 * HEADS * 128 * 128 * SIZE


def test_the_head_is_the_embedding(captured: Capture, model: nn.Module) -> None:
    head = captured.layers[-1]
    assert (head.name, head.op, head.weight_shape, head.bias_count) == ("head", "linear", (512, 64), 0)
    assert head.weight is not None
    assert model.get_parameter(head.weight) is model.get_parameter("tok.weight")
    assert captured.groups[-1].layers == ("head",)


def test_attention_reads_queries_and_shared_keys_and_values(captured: Capture) -> None:
    layers = dict(zip((layer.name for layer in captured.layers), captured.layers, strict=True))
    scores, mixed = layers["blocks.2.matmul_4"], layers["blocks.2.matmul_5"]
    assert (scores.input_shape, scores.second_shape, scores.output_shape) == ((8, 128, 8), (8, 8, 128), (8, 128, 128))
    assert (mixed.input_shape, mixed.second_shape, mixed.output_shape) == ((8, 128, 128), (8, 128, 8), (8, 128, 8))
    sizes = {tensor.name: tensor.shape for tensor in captured.tensors}
    assert scores.second_input is not None
    assert mixed.second_input is not None
    stored = 128 * SHARED * SIZE  # keys and values are kept once for two heads of queries
    assert [np.prod(sizes[name]) for name in (scores.second_input, mixed.second_input)] == [stored, stored]
    edges = {(captured.layers[a].name, captured.layers[b].name) for a, b in captured.edges}
    into = {name: {a for a, b in edges if b == f"blocks.2.{name}"} for name in ("matmul_4", "matmul_5", "wo")}
    assert into == {
        "matmul_4": {"blocks.2.wq", "blocks.2.wk"},
        "matmul_5": {"blocks.2.matmul_4", "blocks.2.wv"},
        "wo": {"blocks.2.matmul_5"},
    }


@pytest.mark.parametrize(("samples", "length"), [(1, 96), (1, 511), (3, 2), (2, 128), (2, 512)])
def test_the_program_in_full_precision_is_the_module(
    program: Program, model: nn.Module, samples: int, length: int
) -> None:
    tokens = words(samples, length)
    values = program.start(tokens, {})
    with torch.inference_mode():
        program.advance(values, {})
        torch.testing.assert_close(program.result(values), model(tokens), rtol=1e-4, atol=1e-4)


def test_only_axes_of_fixed_length_have_channels(captured: Capture, program: Program) -> None:
    streams = observe(program, [words(2, 12), words(1, 31)], channels=True)
    layers = {layer.name: layer for layer in captured.layers}
    points = {
        "features of a block": (layers["blocks.2.wq"].input, 64),
        "features between two linear layers": (layers["blocks.2.w2"].input, 172),
        "features of all keys": ("blocks.2.matmul_4.second", SIZE),
        "attention, one value per position": (layers["blocks.2.matmul_5"].input, None),
        "values, one row per position": ("blocks.2.matmul_5.second", None),
        "heads, joined by a view": (layers["blocks.2.wo"].input, HEADS),
    }
    found = {what: streams[point].channels for what, (point, _) in points.items()}
    rows = {what: None if channels is None else channels.rows for what, channels in found.items()}
    assert rows == {what: expected for what, (_, expected) in points.items()}


def test_the_embedding_is_rounded_with_the_head(program: Program, model: nn.Module) -> None:
    tokens = words(1, 40)
    network = network_of(program, tokens)
    setting = network.setting({"head": Precision.parse("W4Afp32")})
    assert len(setting.weights) == 1
    rounded = made("models.py:Stories260K").eval()
    rounded.load_state_dict(model.state_dict())
    with torch.no_grad():
        step = rounded.tok.weight.abs().amax(1, keepdim=True) / 7
        rounded.tok.weight.copy_((rounded.tok.weight / step).round() * step)
        torch.testing.assert_close(network.forward(tokens, setting), rounded(tokens), rtol=1e-3, atol=1e-3)
        assert (rounded(tokens) - model(tokens)).abs().max() > 0.1


def test_its_devices_run_all_of_its_layers_and_gap9_does_not(captured: Capture, experiment: Experiment) -> None:
    candidates = [Precision.parse(text) for text in experiment.space.precisions]
    assert set(experiment.space.fixed) <= set(captured.layer_index)
    assert experiment.model.dynamic_dims == [0, 1]
    for device in experiment.devices:
        assert cost_table(captured, load_profile(device), candidates).supported.any(axis=1).all()
    with pytest.raises(InputError, match=r"expected operators that gap9_ne16 supports .*, got matmul at blocks\.0"):
        cost_table(captured, load_profile("gap9_ne16"), candidates)


# With the published weights and stories.


def from_data(name: str) -> Any:
    """Return what a factory makes of the data, or skip the test where they are absent."""
    try:
        return made(name)
    except InputError as error:
        pytest.skip(str(error))


def test_stories_are_split_in_two_and_targets_are_the_next_tokens() -> None:
    calibration = from_data("data.py:stories260k_calibration")
    evaluation = from_data("data.py:stories260k_evaluation")
    assert (len(calibration), len(evaluation)) == (40, 127)
    assert sum(x.numel() for x, _ in evaluation) == 49_066
    for x, y in evaluation:
        assert x.shape == y.shape == (1, x.shape[1])
        assert torch.equal(x[:, 1:], y[:, :-1])
        assert x[0, 0] == 1  # the token that a story begins with, and that it never says
        assert (y != 1).all()
        assert x.shape[1] < 512
    seen = {tuple(x[0].tolist()) for x in calibration}
    assert not seen & {tuple(x[0].tolist()) for x, _ in evaluation}


def test_the_trained_network_has_the_published_loss(program: Program, model: nn.Module) -> None:
    evaluation, calibration = (from_data(f"data.py:stories260k_{part}") for part in ("evaluation", "calibration"))
    network = network_of(program, calibration[0])
    scores = Evaluator(evaluation_of(evaluation, "log_likelihood")).score(network, None).per_sample.astype(np.float64)
    lengths = np.array([x.shape[1] for x, _ in evaluation])
    assert -np.average(scores, weights=lengths) == pytest.approx(1.562, abs=5e-4)  # nats per token
    assert -scores.mean() == pytest.approx(1.5472, abs=5e-4)  # nats per token of the average story
    with torch.no_grad():
        expected = [functional.cross_entropy(model(x)[0], y[0]).item() for x, y in evaluation[::16]]
    assert (-scores[::16]).tolist() == pytest.approx(expected, abs=1e-5)


def test_weights_of_another_network_are_refused() -> None:
    name = "llm_stories260k/model.safetensors"
    from_data("models.py:stories260k")
    with pytest.raises(
        ValueError, match=r"expected the weights of Linear in .*, got other keys: \['weight', 'bias', 'b"
    ):
        load_factory("models.py:_loaded", folder=EXPERIMENTS)(nn.Linear(3, 3), name)
