"""Fine-tuning: the student is what is deployed, it gets better, and going on is as if it had never stopped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from hwdse.errors import InputError, RunFolderError
from hwdse.formats import FP32, Granularity, Precision, Scheme, Symmetry
from hwdse.graph import BitConfig
from hwdse.quantize.differentiable import out_of_place
from hwdse.quantize.distil import distance
from hwdse.quantize.finetune import finetune
from hwdse.quantize.learned_range import LearnedRange
from hwdse.quantize.network import QuantizedNetwork, Setting
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from hwdse.quantize.quantizer import UniformQuantizer
from hwdse.quantize.recipe import Recipe
from hwdse.quantize.samples import Samples
from hwdse.quantize.student import Learning, Student, first_tensor
from hwdse.quantize.trainer import Settings
from tests import networks

FAST = Learning(weight_rate=0.02, step_rate=0.01, bias_rate=0.01, activation_rate=0.01, reach=0.5)
SETTINGS = Settings(learning=FAST, passes=3, batch=8, warm_up=2, temperature=1.0, held_share=0.25)
SCHEMES = {
    "default": Scheme(),
    "affine": Scheme(weights=Symmetry.AFFINE, activations=Symmetry.AFFINE, quantized_outputs=True),
    "tensor": Scheme(weight_granularity=Granularity.PER_TENSOR),
    "blocks": Scheme(weight_granularity=Granularity.PER_BLOCK, block_size=5),
}


def network_of(name: str, scheme: Scheme | None = None) -> QuantizedNetwork:
    program = Program.of(networks.captured(name), written=scheme is not None and scheme.quantized_outputs)
    return QuantizedNetwork(
        program,
        scheme=scheme or Scheme(),
        streams=observe(program, data(name, 2)),
        recipe=Recipe(activation_ranges="minmax"),
    )


def data(name: str, batches: int, seed: int = 10) -> list[Any]:
    return [networks.CASES[name].inputs(16, seed=seed + i) for i in range(batches)]


def config_of(network: QuantizedNetwork, *texts: str) -> BitConfig:
    graph = network.captured
    return graph.config([Precision.parse(texts[g % len(texts)]) for g in range(len(graph.groups))])


@pytest.mark.parametrize("name", networks.CASES)
def test_the_student_is_what_is_deployed_and_learns(name):
    network = network_of(name)
    config = config_of(network, "W4A8", "fp32", "Wcodebook3A8")
    student = Student(network, config, FAST)
    inputs = networks.CASES[name].inputs(3, seed=4)
    found = student(inputs)
    expected = first_tensor(network.forward(inputs, network.configure(config)))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    found.square().sum().backward()
    quantized = {layer.weight for layer in network.captured.layers if config.precisions[layer.name].weights != FP32}
    assert student.weights.keys() == quantized - {None}
    for weight in student.weights.values():
        assert weight.values.grad is not None
        assert weight.values.grad.abs().sum() > 0
    fitted = student.fitted()
    assert fitted.quantizers == dict(network.configure(config).quantizers)
    same = network.fitted(fitted)
    assert torch.equal(first_tensor(same.forward(inputs, same.configure(config))), expected)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes(scheme):
    network = network_of("residual", SCHEMES[scheme])
    config = config_of(network, "W4A4")
    student = Student(network, config, FAST)
    inputs = networks.CASES["residual"].inputs(3, seed=4)
    expected = network.forward(inputs, network.configure(config))
    assert torch.allclose(student(inputs), expected, rtol=1e-4, atol=1e-5)
    assert finetune(network, config, data("residual", 4), SETTINGS).best.loss < 1.0


def test_nothing_is_written_over():
    for name in ("residual", "functional", "normed", "vit"):
        program = networks.program(name)
        changed = out_of_place(program)
        batch = networks.CASES[name].inputs(2, seed=3)
        values = [one.start(batch, {}) for one in (program, changed)]
        for one, at in zip((program, changed), values, strict=True):
            one.advance(at, {})
        first, second = (first_tensor(p.result(v)) for p, v in zip((program, changed), values, strict=True))
        assert torch.equal(first, second)
        for step in changed.steps:
            assert step.function is not torch.relu_
            schema = getattr(step.function, "_schema", None)
            assert schema is None or not schema.is_mutable
    assert any(step.function is torch.relu_ for step in networks.program("residual").steps)


@pytest.mark.parametrize("activations", ["learned", "ema", "kept"])
def test_tuning_brings_answers_nearer(activations):
    network = network_of("residual")
    config = config_of(network, "W2A8")
    settings = replace(SETTINGS, passes=6, learning=replace(FAST, activations=activations))
    tuned = finetune(network, config, data("residual", 8), settings)
    assert tuned.best.loss < 0.7 * tuned.checks[0].loss
    assert tuned.ended == "all passes are done"
    assert tuned.checks[-1].step == 6 * 12
    assert (tuned.samples, tuned.held) == (96, 32)
    # On samples that tuning never saw, as deployed.
    fresh = networks.CASES["residual"].inputs(64, seed=99)
    wanted = network.forward(fresh, Setting())
    other = network.fitted(tuned.fitted)
    losses = [
        distance(subject.forward(fresh, subject.configure(config)), wanted, loss="kl") for subject in (network, other)
    ]
    assert losses[1] < 0.8 * losses[0]
    scales = {
        p: (q.scale, network.quantizer(p, config.precisions[n].activations).scale) for n, p, q in points(other, config)
    }
    moved = [now != before for now, before in scales.values()]
    assert any(moved) == (activations != "kept")


def points(network: QuantizedNetwork, config: BitConfig) -> Iterator[tuple[str, str, UniformQuantizer]]:
    for layer in network.captured.layers:
        yield layer.name, layer.input, network.configure(config).quantizers[layer.input]


def test_outputs_that_are_no_logits():
    network = network_of("packed")
    config = config_of(network, "W4A8")
    settings = replace(SETTINGS, loss="mse", passes=6)
    batches = [networks.CASES["packed"].inputs(8, length=length, seed=length) for length in (4, 7, 4, 5)]
    tuned = finetune(network, config, batches, settings)
    wanted = first_tensor(network.forward(batches[0], Setting()))
    assert tuned.checks[0].loss > 0
    assert tuned.best.loss < tuned.checks[0].loss
    assert (tuned.samples, tuned.held) == (24, 8)
    assert wanted.shape[0] == 8


class Stopping:
    """Somebody who watches, and stops the process after some steps."""

    def __init__(self, steps: int) -> None:
        self.left, self.stage = steps, ""

    def start(self, stage: str, total: int | None) -> None:
        del total
        self.stage = stage

    def advance(self) -> None:
        if self.stage in ("first steps", "fine-tune"):
            self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def warn(self, sentence: str) -> None:
        raise AssertionError(sentence)


@pytest.mark.parametrize(("text", "activations"), [("W3A8", "learned"), ("Wcodebook3A4", "ema")])
@pytest.mark.parametrize("steps", [4, 16, 25])
def test_going_on_is_as_if_it_had_never_stopped(text, activations, steps, tmp_path):
    network = network_of("residual")
    config = config_of(network, text)
    settings = replace(SETTINGS, learning=replace(FAST, activations=activations))
    whole = finetune(network, config, data("residual", 8), settings)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        finetune(network, config, data("residual", 8), settings, checkpoint=path, progress=Stopping(steps))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]
    resumed = finetune(network, config, data("residual", 8), settings, checkpoint=path, resume=True)
    assert resumed.checks == whole.checks
    assert resumed.fitted.quantizers == whole.fitted.quantizers
    for name, found in whole.fitted.weights.items():
        assert torch.equal(found.values, resumed.fitted.weights[name].values)
        assert torch.equal(found.scale, resumed.fitted.weights[name].scale)
        assert found.levels == resumed.fitted.weights[name].levels
    assert all(torch.equal(bias, resumed.fitted.biases[name]) for name, bias in whole.fitted.biases.items())


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    network = network_of("mlp")
    config = config_of(network, "W4A8")
    path = tmp_path / "checkpoint.pt"
    more = {"checkpoint": path, "about": {"bits": "W4A8", "data": "one"}}
    with pytest.raises(KeyboardInterrupt):
        finetune(network, config, data("mlp", 8), SETTINGS, progress=Stopping(5), **more)
    with pytest.raises(RunFolderError, match="of the same tuning, got another seed; give what it was begun with"):
        finetune(network, config, data("mlp", 8), replace(SETTINGS, seed=1), resume=True, **more)
    other = replace(SETTINGS, learning=replace(FAST, reach=0.1))
    more["about"] = {"bits": "W4A8", "data": "two"}
    with pytest.raises(RunFolderError, match="of the same tuning, got another data, learning;"):
        finetune(network, config, data("mlp", 8), other, resume=True, **more)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunFolderError, match="got a damaged file"):
        finetune(network, config, data("mlp", 8), SETTINGS, resume=True, **more)
    torch.save({"about": more["about"], "state": Stopping(1)}, path)
    with pytest.raises(RunFolderError, match="got a damaged file"):
        finetune(network, config, data("mlp", 8), SETTINGS, resume=True, **more)
    path.unlink()
    with pytest.raises(RunFolderError, match="expected a checkpoint to go on from, got no file"):
        finetune(network, config, data("mlp", 8), SETTINGS, resume=True, **more)


def test_what_diverges_keeps_the_start():
    network = network_of("residual")
    config = config_of(network, "W4A8")
    wild = replace(SETTINGS, learning=replace(FAST, bias_rate=1e30, step_rate=50.0), warm_up=1)
    tuned = finetune(network, config, data("residual", 8), wild)
    assert tuned.fitted is None
    assert tuned.best.step == 0
    assert "the loss was not finite after" in tuned.ended


def test_no_improvement_is_none():
    network = network_of("mlp")
    still = replace(SETTINGS, learning=Learning(weight_rate=0.0, step_rate=0.0, bias_rate=0.0, activation_rate=0.0))
    tuned = finetune(network, config_of(network, "W4A8"), data("mlp", 8), still)
    assert tuned.fitted is None
    assert {check.loss for check in tuned.checks} == {tuned.checks[0].loss}


class Ticking:
    """A clock on which every look at it takes a second."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_time_ends_it():
    network = network_of("mlp")
    settings = replace(SETTINGS, passes=1000)
    tuned = finetune(network, config_of(network, "W4A8"), data("mlp", 8), settings, seconds=60.0, clock=Ticking())
    assert tuned.ended == "the time is over"
    assert tuned.seconds <= 70.0
    assert 10 < tuned.checks[-1].step < 60


def test_a_slow_beginning_costs_no_steps_that_there_is_time_for():
    class Warming(Ticking):
        """Four slow seconds at first, then a hundredth of one at a time."""

        def __call__(self) -> float:
            self.now += 1.0 if self.now < 4.0 else 0.01
            return self.now

    network = network_of("mlp")
    settings = replace(SETTINGS, passes=10)
    tuned = finetune(network, config_of(network, "W4A8"), data("mlp", 8), settings, seconds=8.0, clock=Warming())
    assert tuned.ended == "all passes are done"
    whole = finetune(network, config_of(network, "W4A8"), data("mlp", 8), settings, seconds=1e6)
    assert tuned.checks[-1].step == whole.checks[-1].step


def test_bad_input_is_one_sentence():
    network = network_of("mlp")
    config = config_of(network, "W4A8")
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="expected a number of seconds above 0, got"):
            finetune(network, config, data("mlp", 2), SETTINGS, seconds=seconds)
    with pytest.raises(InputError, match="expected samples to train on and others to hold back, got 1 in all"):
        finetune(network, config, [networks.CASES["mlp"].inputs(1)], SETTINGS)
    with pytest.raises(InputError, match="expected batches with samples to train on, got none"):
        finetune(network, config, [], SETTINGS)
    with pytest.raises(InputError, match="expected a configuration with quantized layers to tune, got none"):
        finetune(network, config_of(network, "fp32"), data("mlp", 2), SETTINGS)
    for change, sentence in (
        ({"passes": 0}, "expected passes of at least 1, got 0"),
        ({"batch": 0}, "expected batch of at least 1, got 0"),
        ({"warm_up": 0}, "expected warm-up of at least 1, got 0"),
        ({"temperature": 0.0}, "expected a temperature above 0, got 0"),
        ({"held_share": 1.0}, "expected a share between 0 and 1 of held-back samples, got 1"),
        ({"loss": "l3"}, "expected a loss of kl, mse, got 'l3'"),
    ):
        with pytest.raises(InputError, match=sentence):
            replace(SETTINGS, **change)
    with pytest.raises(InputError, match="expected a weight rate of at least 0, got nan"):
        Learning(weight_rate=float("nan"))
    with pytest.raises(InputError, match="expected reach and decay from 0 to less than 1, got 1"):
        Learning(reach=1.0)
    with pytest.raises(InputError, match="expected activation ranges of learned, ema, kept, got 'free'"):
        Learning(activations="free")


def test_distances():
    found, wanted = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(1)).unbind(0)
    for temperature in (1.0, 3.0):
        ours, theirs = (functional.log_softmax(x / temperature, -1) for x in (found, wanted))
        expected = functional.kl_div(ours, theirs, log_target=True, reduction="batchmean") * temperature**2
        assert torch.allclose(distance(found, wanted, loss="kl", temperature=temperature), expected)
    assert torch.allclose(distance(found, wanted, loss="mse"), (found - wanted).square().mean())
    with pytest.raises(InputError, match="expected a loss of kl, mse, got 'l1'"):
        distance(found, wanted, loss="l1")


def test_every_sample_is_trained_on_once_a_pass_or_held_back():
    network = network_of("mlp")
    batches = data("mlp", 3)
    samples = Samples.of(network, batches)
    rows = torch.cat([batch[0] for batch in batches])
    kept, held = samples.split(0.1, seed=5)
    assert (len(kept), len(held)) == (43, 5)
    for seed in (1, 2):
        steps = list(kept.shuffled(8, seed=seed))
        assert [sum(map(len, pieces)) for pieces in steps] == [8] * 5 + [3]
        seen = torch.cat([piece.inputs[0] for pieces in [*steps, *held.whole(64)] for piece in pieces])
        assert torch.equal(seen.sort(0).values, rows.sort(0).values)
    first, second = (torch.cat([p.inputs[0] for s in kept.shuffled(8, seed=i) for p in s]) for i in (1, 2))
    assert not torch.equal(first, second)
    for pieces in held.whole(64):
        for piece in pieces:
            assert torch.allclose(piece.answers, network.forward(piece.inputs, Setting()), atol=1e-5)
    assert len(Samples.of(network, batches[:1]).split(0.001, seed=0)[1]) == 1


def test_averaged_extremes_give_scale_and_zero_point():
    scheme = Scheme(activations=Symmetry.AFFINE)
    network = network_of("mlp", scheme)
    point = network.captured.layers[0].input
    start = network.quantizer(point, Precision.parse("W8A8").activations)
    one = LearnedRange(start, manner="ema", decay=0.75)
    low, high = (end * start.scale for end in start.bounds)
    for shift in (3.0, 5.0):
        x = torch.linspace(-1.0, 2.0, 50) + shift
        one(x)
        low, high = 0.75 * low + 0.25 * (shift - 1.0), 0.75 * high + 0.25 * (shift + 2.0)
    scale, zero_point = start.levels.grid(low, high)
    assert one.quantizer.scale == pytest.approx(float(scale), rel=1e-6)
    assert one.quantizer.zero_point == int(zero_point)
    kept = LearnedRange(start, manner="ema", decay=0.75)
    kept.load(one.state())
    assert kept.quantizer == one.quantizer
