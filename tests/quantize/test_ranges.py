"""Ranges of activations that are chosen by the network's output."""

from __future__ import annotations

from itertools import chain, repeat

import numpy as np
import pytest
import torch
from torch import nn

from hwdse.analysis.distances import kl
from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.formats import Precision, Scheme, parse
from hwdse.quantize import ranges
from hwdse.quantize.network import QuantizedNetwork, Setting
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from hwdse.quantize.quantizer import CastQuantizer, UniformQuantizer
from hwdse.quantize.ranges import choose_ranges, output_harm, range_candidates
from tests import networks

INT4 = parse("int4")


def batches_of(name, count=2, size=6):
    return [networks.CASES[name].inputs(size, seed=seed) for seed in range(count)]


def prepared(name, *, shares=(1.0, 0.6, 0.3), calibrators=("mse",)):
    """Return network, batches, weights of 4 bits and candidates of 4-bit activations."""
    program, batches = networks.program(name), batches_of(name)
    streams = observe(program, batches)
    network = QuantizedNetwork(program, scheme=Scheme(), streams=streams)
    setting = network.setting(dict.fromkeys(program.captured.layer_index, Precision.parse("W4A4")))
    read = {point: streams[point] for point in setting.quantizers}
    found = range_candidates(read, INT4, scheme=Scheme(), shares=shares, calibrators=calibrators)
    return network, batches, setting.constants, found


def brute_force(network, batches, constants, candidates, base):
    """Choose by whole runs, one for each candidate of each point."""
    full = [network.forward(batch, Setting()) for batch in batches]
    powers = ranges._powers(full)
    chosen, current = {}, dict(base)
    for point in network.program.points:
        if point not in candidates:
            continue
        harms = [
            torch.cat(
                [
                    output_harm(f, network.forward(b, Setting(constants, {**current, point: option})), powers)
                    for f, b in zip(full, batches, strict=True)
                ]
            ).numpy()
            for option in candidates[point]
        ]
        best = min(range(len(harms)), key=lambda k: harms[k].mean())
        gain = harms[0] - harms[best]
        chosen[point] = best if gain.mean() > 0.5 * np.sqrt(gain.var(ddof=1) / gain.size) else 0
        current[point] = candidates[point][chosen[point]]
    return chosen


# Two-dimensional logits; a product of two activations; sequences; two inputs and a dictionary of outputs.
@pytest.mark.parametrize("name", ["mlp", "residual", "dscnn", "inception", "packed", "encoder", "llama", "siamese"])
def test_whole_runs_of_every_candidate_choose_the_same(name):
    network, batches, constants, candidates = prepared(name)
    base = {}
    if len(candidates) > 2:
        last = list(candidates)[1]
        base = {last: candidates.pop(last)[-1]}

    found = choose_ranges(network.program, batches, constants, candidates, base=base)

    assert found == brute_force(network, batches, constants, candidates, base)
    assert set(found) == set(candidates)
    assert found == choose_ranges(network.program, batches, constants, candidates, base=base)


def test_choices_are_not_all_the_first():
    network, batches, constants, candidates = prepared("dscnn")

    assert len(set(choose_ranges(network.program, batches, constants, candidates).values())) > 1


class Column(nn.Module):
    """Logits of one column out of many, or of all others."""

    def __init__(self, width, *, is_last):
        super().__init__()
        self.head = nn.Linear(width, 2, bias=False)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[0] = 0.0 if is_last else 0.02
            self.head.weight[0, -1] = 1.0 if is_last else 0.0

    def forward(self, x):
        return self.head(x)


@pytest.mark.parametrize("is_last", [True, False])
def test_outliers_are_kept_where_they_matter(is_last):
    # Values up to 1, and one in 4,000 that is 0 or 8: with 15 steps, cutting off the 8 costs (8 - 1)^2 / 8,000 at most,
    # far less than the (8 / 15)^2 / 12 of steps that reach it.
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(32, 4000, generator=generator)
    x[:, -1] = 8.0 * (torch.arange(32) % 2)
    program = Program.of(capture(Column(4000, is_last=is_last), x[:2]))
    streams = observe(program, [x])
    ((point, (mse, minmax)),) = range_candidates(
        streams, INT4, scheme=Scheme(), shares=(), calibrators=("mse", "minmax")
    ).items()
    assert mse.scale * 15 < 4.0
    assert minmax.scale * 15 == pytest.approx(8.0)

    for order, names in (((mse, minmax), ("mse", "minmax")), ((minmax, mse), ("minmax", "mse"))):
        found = choose_ranges(program, [x], {}, {point: order})
        assert names[found[point]] == ("minmax" if is_last else "mse")


def test_batches_do_not_matter_nor_does_memory(monkeypatch):
    for name in ("residual", "packed"):
        network, batches, constants, candidates = prepared(name)
        whole = [tuple(torch.cat(parts) for parts in zip(*batches, strict=True))]
        found = choose_ranges(network.program, batches, constants, candidates)

        assert choose_ranges(network.program, whole, constants, candidates) == found
        monkeypatch.setattr(ranges, "_KEPT_BYTES", 0)
        assert choose_ranges(network.program, batches, constants, candidates) == found
        monkeypatch.undo()


def test_what_comes_before_a_point_runs_once(monkeypatch):
    network, batches, constants, candidates = prepared("residual")
    program, ran = network.program, []
    advance = Program.advance

    def counted(self, values, quantizers, *, first=0, last=None):
        ran.append(len(self.steps[first:last]))
        advance(self, values, quantizers, first=first, last=last)

    monkeypatch.setattr(Program, "advance", counted)
    choose_ranges(program, batches[:1], constants, candidates)

    starts = {step.point: i for i, step in enumerate(program.steps) if step.point}
    steps = len(program.steps)
    behind = sum(len(options) * (steps - starts.get(point, 0)) for point, options in candidates.items())
    # One pass in full precision, and the way to the last point.
    assert sum(ran) == behind + steps + max(starts[point] for point in candidates if point in starts)


def test_only_the_first_samples_are_used():
    network, batches, constants, candidates = prepared("mlp")

    def endless():
        yield batches[0]
        yield batches[1]
        raise AssertionError

    found = choose_ranges(network.program, endless(), constants, candidates, samples=8)
    cut = [batches[0], tuple(x[:2] for x in batches[1])]

    assert found == choose_ranges(network.program, cut, constants, candidates)


def test_each_point_is_told():
    network, batches, constants, candidates = prepared("residual")
    told = []

    choose_ranges(network.program, batches, constants, candidates, on_point=lambda: told.append(1))

    assert len(told) == len(candidates)


def test_equal_candidates_are_one():
    network, batches, constants, candidates = prepared("mlp")
    twice = {point: list(chain.from_iterable(zip(o, o, strict=True))) for point, o in candidates.items()}

    found = choose_ranges(network.program, batches, constants, candidates)

    assert choose_ranges(network.program, batches, constants, twice) == {p: 2 * k for p, k in found.items()}
    same = {point: list(repeat(o[1], 3)) for point, o in candidates.items()}
    assert set(choose_ranges(network.program, batches, constants, same).values()) == {0}


@pytest.mark.parametrize(
    ("harms", "expected"),
    [
        ([[2.0, 2.0, 2.0], [1.0, 1.0, 1.0]], 1),
        ([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], 0),
        # Gains 3, -2, 2 and 4, -3, 0: means 1 and 1/3, half a standard error 0.76 and 1.01.
        ([[3.0, 3.0, 3.0], [0.0, 5.0, 1.0]], 1),
        ([[3.0, 3.0, 3.0], [-1.0, 6.0, 3.0]], 0),
        ([[3.0, 3.0, 3.0], [2.0, 2.0, 2.0], [1.0, 1.0, 1.0]], 2),
        ([[2.0], [1.0]], 1),
    ],
)
def test_the_first_candidate_stays_within_noise(harms, expected):
    assert ranges._preferred(np.array(harms)) == expected


def test_candidates_are_shares_of_what_was_seen():
    program = networks.program("mlp")
    x = torch.full((4, 12), 3.0)
    x[0, 0] = -1.5
    streams = observe(program, [x])
    first = program.inputs[0][1]

    shares = range_candidates(streams, INT4, scheme=Scheme(), shares=(1.0, 0.5, 0.5), calibrators=("minmax",))[first]

    # Codes from -8 to 7: the larger end is at 3.
    assert [type(q) for q in shares] == [UniformQuantizer] * 2
    np.testing.assert_allclose([q.scale for q in shares], [3.0 / 7, 1.5 / 7], rtol=1e-6)
    halves = range_candidates(streams, parse("fp16"), scheme=Scheme())
    assert halves[first] == [CastQuantizer(torch.float16)]
    assert range_candidates(streams, parse("fp32"), scheme=Scheme()) == {}


def test_harm_of_logits_is_their_divergence():
    generator = torch.Generator().manual_seed(0)
    reference, output = (torch.randn(5, 4, generator=generator) for _ in range(2))
    reference[0, 0] = output[0, 0] = -torch.inf

    torch.testing.assert_close(output_harm(reference, output, [1.0])[1:], kl(reference, output)[1:])
    assert bool(output_harm(reference, output, [1.0]).isfinite().all())


def test_harm_of_other_outputs_is_their_relative_error():
    column = torch.tensor([[1.0], [3.0]])
    torch.testing.assert_close(
        output_harm(column, column + 1.0, ranges._powers([column])), torch.tensor([0.2, 0.2]).double()
    )
    both = {"a": torch.tensor([[[2.0, 0.0]]]), "b": torch.zeros(1, 3), "n": torch.ones(1, dtype=torch.int64)}
    other = {"a": torch.tensor([[[2.0, 2.0]]]), "b": torch.ones(1, 3), "n": torch.zeros(1, dtype=torch.int64)}
    # Mean squares 2 and 0, which counts as 1; errors 2 and 1.
    assert output_harm(both, other, ranges._powers([both])).tolist() == [1.0]
    assert ranges._powers([column, 2.0 * column]) == [12.5]


class Chosen(nn.Module):
    """The class of the largest logit, or a logit that overflows."""

    def __init__(self, *, is_class):
        super().__init__()
        self.line, self.is_class = nn.Linear(4, 3), is_class

    def forward(self, x):
        y = self.line(x)
        return y.argmax(-1) if self.is_class else (y * 1e30) * 1e30


def test_bad_requests_are_refused():
    network, batches, constants, candidates = prepared("mlp")
    program = network.program
    for none in ([], [batches[0][0][:0]]):
        with pytest.raises(InputError, match="expected at least one batch of calibration data, got none"):
            choose_ranges(program, none, constants, candidates)
    with pytest.raises(InputError, match="expected at least one batch of calibration data, got none"):
        choose_ranges(program, batches, constants, candidates, samples=0)
    with pytest.raises(InputError, match="expected points of this network, got 'nowhere'"):
        choose_ranges(program, batches, constants, {"nowhere": next(iter(candidates.values()))})
    with pytest.raises(InputError, match="expected at least one candidate for 'x', got none"):
        choose_ranges(program, batches, constants, {"x": []})
    with pytest.raises(InputError, match=r"expected a format with positive codes .* \(tensor 'x'\)"):
        range_candidates({"x": observe(program, batches)["x"]}, parse("int1"), scheme=Scheme())
    for is_class, reason in (
        (True, "expected a network that returns floating-point tensors, got Tensor"),
        (False, "expected finite outputs, got NaN or infinity with 'x' rounded"),
    ):
        x = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
        own = Program.of(capture(Chosen(is_class=is_class), x))
        options = range_candidates(observe(own, [x]), INT4, scheme=Scheme())
        with pytest.raises(InputError, match=reason):
            choose_ranges(own, [x], {}, options)


class Drowned(nn.Module):
    """A chain of linears whose first channels are wide, and read by nobody."""

    def __init__(self):
        super().__init__()
        self.lines = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)])
        with torch.no_grad():
            for line, after in zip(self.lines, self.lines[1:], strict=False):
                line.weight[0] *= 30.0
                after.weight[:, 0] = 0.0

    def forward(self, x):
        return self.lines[2](self.lines[1](self.lines[0](x).relu()).relu())


def test_wide_channels_that_do_not_matter_are_cut_off():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x, model = torch.randn(64, 8), Drowned()
    network = QuantizedNetwork.calibrated(capture(model, x), [x], scheme=Scheme())
    candidates = range_candidates(network.streams, INT4, scheme=Scheme(), calibrators=())
    full = network.forward(x, Setting())

    def harm(chosen):
        setting = Setting(quantizers={point: candidates[point][k] for point, k in chosen.items()})
        return float(kl(full, network.forward(x, setting)).mean())

    found = choose_ranges(network.program, [x], {}, candidates)

    assert harm(found) < 0.2 * harm(dict.fromkeys(candidates, 0))
