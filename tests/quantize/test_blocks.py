"""Blocks of small networks against what their structure says by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from hwdse.capture import capture
from hwdse.quantize.blocks import blocks, single_layers
from hwdse.quantize.differentiable import differentiable
from hwdse.quantize.program import Program, layer_output
from hwdse.quantize.rebuildable import rebuildable
from tests import networks

BY_HAND = {
    "mlp": [["first"], ["second"]],
    "residual": [["stem"], ["a1", "a2"], ["b1", "b2", "short"], ["head"]],
    "inception": [["one", "three"], ["after"]],
    "vit": [["patches"], ["attention.in_proj", "attention.linear_1"], ["grow", "shrink"], ["head"]],
    "llama": [
        *(
            [f"blocks.{i}.{name}" for name in names]
            for i in range(2)
            for names in (("q", "k", "v", "o"), ("gate", "up", "down"))
        )
    ],
    "encoder": [["self_attn.in_proj", "self_attn.linear_1"], ["linear1", "linear2"]],
    "packed": [["qkv"], ["out"]],
    "siamese": [["image", "words"]],
}

SMALL = [name for name in networks.CASES if name != "resnet20"]


def names_of(found):
    return [sorted(site.name for site in block.sites) for block in found]


@pytest.mark.parametrize("name", BY_HAND)
def test_blocks_are_those_by_hand(name):
    assert names_of(blocks(networks.program(name))) == [sorted(names) for names in BY_HAND[name]]


@pytest.mark.parametrize("name", SMALL)
def test_every_layer_is_in_one_block_and_one_single_layer(name):
    program = networks.program(name)
    expected = sorted(site.name for site in rebuildable(program).values())

    for found in (blocks(program), single_layers(program)):
        assert sorted(site.name for block in found for site in block.sites) == expected
        assert [block.start for block in found] == sorted(block.start for block in found)
    assert all(len(block.sites) == 1 for block in single_layers(program))


@pytest.mark.parametrize("name", SMALL)
def test_a_block_needs_what_it_reads_and_sizes_alone(name):
    program = differentiable(networks.program(name))
    flow = program.captured.flow
    batch = networks.CASES[name].inputs(3)
    with torch.no_grad():
        whole = program.start(batch, {})
        program.quantize_inputs(whole, {})
        program.advance(whole, {})
        for block in (*blocks(program), *single_layers(program)):
            values = list(program.constants)
            for i, node in enumerate(flow.nodes):
                if node not in flow.activations and values[i] is None:
                    values[i] = whole[i]
            for position in block.reads:
                values[position] = whole[position]
            for i in block.steps:
                program.advance(values, {}, first=i, last=i + 1)
            for position in block.writes:
                torch.testing.assert_close(values[position], whole[position], rtol=0, atol=0)


def test_a_chain_gives_single_layers_with_their_activation_functions():
    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            x = functional.max_pool2d(functional.relu6(self.a(x)), 2)
            return self.c(functional.silu(self.b(x)).mean((2, 3))).softmax(-1)

    torch.manual_seed(0)
    program = Program.of(capture(Chain().eval(), torch.randn(2, 3, 12, 12)))
    by_name = {step.output: step.name for step in program.steps}

    found, single = blocks(program), single_layers(program)

    assert names_of(found) == names_of(single) == [["a"], ["b"], ["c"]]
    assert [b.steps for b in found] == [b.steps for b in single]
    written = [by_name[block.writes[0]] for block in found]
    # The pooling, the mean and the softmax belong to no block.
    assert written[1] == "silu"
    assert written[0] in {"relu6", "hardtanh", "clamp"}
    assert written[2] == layer_output(found[2].sites[0]).name


def test_an_activation_function_that_others_read_past_stays_outside_a_single_layer():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            y = self.a(x)
            return self.b(y * y.sigmoid())

    torch.manual_seed(0)
    program = Program.of(capture(Gated().eval(), torch.randn(2, 4)))

    single, found = single_layers(program), blocks(program)

    assert len(single[0].steps) == 1
    assert names_of(found) == [["a"], ["b"]]
