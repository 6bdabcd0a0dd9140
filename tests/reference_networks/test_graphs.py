"""The graphs in the package against published counts, and against the modules they were captured from."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.networks import layer_graph, reference_networks
from hwdse.networks.models import NETWORKS, build
from hwdse.networks.store import plain

# Trainable parameters: torchvision's model pages; BVLC GoogLeNet; timm's model pages for Inception-v4, ResNeXt-26,
# EfficientNet-Lite and the smaller transformers; ResNet-20; ResNet-32 of 464,154 with 90 classes more of 65 each.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet50_299": 25_557_032,
    "resnet_v1_50": 25_557_032,
    "resnet101": 44_549_160,
    "resnext26_32x4d": 15_389_480,
    "resnext50_32x4d": 25_028_904,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_large": 5_483_032,
    "mobilenet_v3_small": 2_542_856,
    "googlenet": 6_624_904,
    "inception_v1": 6_998_552,
    "inception_v3": 23_834_568,
    "inception_v4": 42_679_816,
    "regnet_x_800mf": 7_259_656,
    "regnet_x_1_6gf": 9_190_136,
    "regnet_x_3_2gf": 15_296_552,
    "shufflenet_v2": 2_278_604,
    "squeezenet1_1": 1_235_496,
    "efficientnet_b0": 5_288_548,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "efficientnet_lite3": 8_197_096,
    "efficientnet_lite4": 13_006_568,
    "resnet20_cifar": 269_722,
    "resnet32_cifar100": 470_004,
    "vit_tiny": 5_717_416,
    "vit_small": 22_050_664,
    "vit_base": 86_567_656,
}

# Parameters with the running statistics of batch norms, as Keras counts: its applications, and MLPerf Tiny's models.
WITH_STATISTICS = {
    "mobilenet_v1": 4_253_864,
    "mobilenet_v1_0.5": 1_342_536,
    "mobilenet_v1_0.25": 475_544,
    "mobilenet_v1_0.25_96": 221_794,
    "mobilenet_v2": 3_538_984,
    "mobilenet_v2_1.4": 6_156_712,
    "resnet8": 78_666,
    "ds_cnn": 24_908,
    "autoencoder": 269_992,
}

# In millions: Ding et al. 2021, table 4, which cuts off the further digits.
MILLION_PARAMETERS = {"repvgg_a1": 12.78, "repvgg_a2": 25.49}

# MACs in thousand millions: torchvision's model pages. A transformer's products of two activations count.
GIGA_MACS = {
    "resnet18": 1.81,
    "resnet34": 3.66,
    "resnet50": 4.09,
    "resnet101": 7.80,
    "resnext50_32x4d": 4.23,
    "mobilenet_v2": 0.30,
    "mobilenet_v3_large": 0.22,
    "mobilenet_v3_small": 0.06,
    "googlenet": 1.50,
    "inception_v3": 5.71,
    "regnet_x_800mf": 0.80,
    "regnet_x_1_6gf": 1.60,
    "regnet_x_3_2gf": 3.18,
    "shufflenet_v2": 0.14,
    "squeezenet1_1": 0.35,
    "efficientnet_b0": 0.39,
    "vit_base": 17.56,
}

# In millions: Howard et al. 2017, tables 6 and 7; the model list of TensorFlow's MobileNetV2.
MEGA_MACS = {
    "mobilenet_v1": 569,
    "mobilenet_v1_0.5": 149,
    "mobilenet_v1_0.25": 41,
    "mobilenet_v2": 301,
    "mobilenet_v2_1.4": 582,
    "mobilenet_v2_0.35": 59,
    "mobilenet_v2_0.35_128": 20,
}

# MACs that MLPerf Tiny's results give. They count an average pooling as one per pixel and channel, and a softmax as two
# per class; here these are no MACs.
TINY = {
    "resnet8": (12_505_748, 8 * 8 * 64, 10),
    "ds_cnn": (2_664_792, 25 * 5 * 64, 12),
    "mobilenet_v1_0.25_96": (7_491_972, 3 * 3 * 256, 2),
    "autoencoder": (264_192, 0, 0),
    "autoencoder_folded": (264_192, 0, 0),
}

EXACT = {
    "resnet18": 1_814_073_344,
    "resnet50": 4_089_184_256,
    "mobilenet_v1": 568_740_352,
    "mobilenet_v2": 300_774_272,
}

# Roughly: the Hailo Model Zoo for the first two, the abstract of Szegedy et al. 2015 ("1.5 billion"), timm's model
# pages, the model list of EfficientNet-Lite (which counts more than convolutions and linears, 3 to 6 %), and Ding et
# al. 2021, table 4.
ABOUT = {
    "resnet_v1_50": (3.49e9, 0.003),
    "resnext26_32x4d": (2.48e9, 0.01),
    "inception_v1": (1.5e9, 0.06),
    "inception_v4": (12.28e9, 0.01),
    "efficientnet_lite0": (407e6, 0.06),
    "efficientnet_lite1": (631e6, 0.06),
    "efficientnet_lite2": (899e6, 0.06),
    "efficientnet_lite3": (1.44e9, 0.06),
    "efficientnet_lite4": (2.64e9, 0.06),
    "repvgg_a1": (2.4e9, 0.02),
    "repvgg_a2": (5.1e9, 0.01),
}

QUICK = ("resnet8", "ds_cnn", "squeezenet1_1")


def module(name):
    """Return a network without values."""
    with torch.device("meta"):
        return NETWORKS[name].builder()


def trainable(name):
    return sum(parameter.numel() for parameter in module(name).parameters())


def test_every_network_has_its_graph():
    assert reference_networks() == tuple(sorted(NETWORKS))


def test_every_network_is_held_against_something_published():
    parameters = PARAMETERS | WITH_STATISTICS | MILLION_PARAMETERS | {"autoencoder_folded": 0}
    same_but_for_size = {"mobilenet_v2_0.35", "mobilenet_v2_0.35_128"}
    assert set(parameters) | same_but_for_size == set(NETWORKS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_trainable_parameters(name):
    assert trainable(name) == PARAMETERS[name]


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_parameters_and_running_statistics(name):
    statistics = [b.numel() for key, b in module(name).named_buffers() if "running" in key]
    assert trainable(name) + sum(statistics) == WITH_STATISTICS[name]


@pytest.mark.parametrize("name", MILLION_PARAMETERS)
def test_millions_of_parameters(name):
    assert math.floor(trainable(name) / 1e4) / 100 == MILLION_PARAMETERS[name]


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_parameters_of_a_graph_are_those_with_convolutions_that_hold_their_norm(name):
    folded = sum(
        part.weight.numel() + part.out_channels
        if isinstance(part, nn.Conv2d)
        else sum(parameter.numel() for parameter in part.parameters(recurse=False))
        for part in build(name)[0].modules()
        if not isinstance(part, nn.BatchNorm2d)
    )
    assert layer_graph(name).parameter_count == folded


@pytest.mark.parametrize("name", EXACT)
def test_macs(name):
    assert layer_graph(name).macs == EXACT[name]


@pytest.mark.parametrize("name", GIGA_MACS)
def test_thousand_millions_of_macs(name):
    assert round(layer_graph(name).macs / 1e9, 2) == GIGA_MACS[name]


@pytest.mark.parametrize("name", MEGA_MACS)
def test_millions_of_macs(name):
    assert round(layer_graph(name).macs / 1e6) == MEGA_MACS[name]


@pytest.mark.parametrize("name", ABOUT)
def test_roughly_published_macs(name):
    published, margin = ABOUT[name]
    assert layer_graph(name).macs == pytest.approx(published, rel=margin)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_macs_are_outputs_times_the_weights_of_one(name):
    found = []

    def count(part, _inputs, output):
        found.append(output.numel() * part.weight[0].numel())

    network = module(name).eval()
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.register_forward_hook(count)
    network(torch.empty(1, *NETWORKS[name].shape, device="meta"))
    graph = layer_graph(name)
    assert [layer.macs for layer in graph.layers if layer.weight is not None] == found


@pytest.mark.parametrize("name", TINY)
def test_macs_of_mlperf_tiny(name):
    published, pooled, classes = TINY[name]
    assert layer_graph(name).macs == published - pooled - 2 * classes


@pytest.mark.parametrize(("name", "blocks", "classes"), [("resnet20_cifar", 3, 10), ("resnet32_cifar100", 5, 100)])
def test_macs_of_a_residual_network_for_small_images(name, blocks, classes):
    # Every 3x3 convolution that keeps the size has as many MACs: half the width, twice the channels each way.
    same, stem = 32 * 32 * 16 * 16 * 9, 32 * 32 * 3 * 16 * 9
    assert layer_graph(name).macs == stem + 6 * blocks * same - 2 * same // 2 + 64 * classes


@pytest.mark.parametrize(("name", "width", "published"), [("vit_tiny", 192, 1.3e9), ("vit_small", 384, 4.6e9)])
def test_macs_of_a_transformer_are_of_linears_and_of_products(name, width, published):
    tokens, depth = 197, 12
    linears = tokens * 12 * width**2 * depth + 196 * 16 * 16 * 3 * width + 1000 * width
    products = 2 * tokens**2 * width * depth
    graph = layer_graph(name)
    assert graph.macs == linears + products
    assert sum(layer.macs for layer in graph.layers if layer.op == "matmul") == products
    assert graph.macs == pytest.approx(published, rel=0.05)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_graph_holds_the_weights_of_its_network_and_reads_its_input(name):
    graph, shape = layer_graph(name), NETWORKS[name].shape
    parts = [part for part in module(name).modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    held = {layer.weight: layer.weight_shape for layer in graph.layers if layer.weight is not None}
    assert sorted(held.values()) == sorted(tuple(part.weight.shape) for part in parts)
    assert graph.layers[0].input_shape == shape
    inputs = [value for value in graph.values if value.layer is None and value.node is None]
    assert [value.elements for value in inputs] == [math.prod(shape)]


@pytest.mark.parametrize("name", QUICK)
def test_a_graph_is_what_is_captured_today(name):
    assert layer_graph(name) == plain(capture(*build(name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NETWORKS) - set(QUICK)))
def test_every_other_graph_is_what_is_captured_today(name):
    assert layer_graph(name) == plain(capture(*build(name)))


def test_a_graph_is_read_once():
    assert layer_graph("resnet8") is layer_graph("resnet8")


@pytest.mark.parametrize("give", [layer_graph, build])
def test_an_unknown_name_gets_the_closest_one(give):
    with pytest.raises(InputError, match=r"^expected a reference network, got 'resnet_18'; did you mean resnet18\?$"):
        give("resnet_18")
    with pytest.raises(InputError, match=r"got 'zzz'; known: autoencoder, .*, vit_tiny$"):
        give("zzz")


@pytest.mark.parametrize("name", ["../graphs/resnet8", "resnet8.json.gz", ""])
def test_a_name_is_no_path(name):
    with pytest.raises(InputError, match="expected a reference network"):
        layer_graph(name)


def test_a_graph_loads_without_torch():
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"  # importing it raises ImportError
        "from hwdse.networks import layer_graph\n"
        "print(layer_graph('resnet18').macs)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout == "1814073344\n", result.stderr


def test_building_a_network_twice_gives_the_same():
    (first, x), (second, y) = build("resnet8"), build("resnet8")
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
    assert torch.equal(x, y)
    assert x.shape == (1, 3, 32, 32)
    assert not any(part.training for part in first.modules())


@pytest.mark.parametrize("name", ["resnet20_cifar", "ds_cnn", "squeezenet1_1", "mobilenet_v1_0.25_96"])
def test_values_neither_vanish_nor_explode(name):
    model, x = build(name)
    with torch.no_grad():
        y = model(x)
    assert y.isfinite().all()
    assert 1e-2 < y.std() < 1e2


def test_both_autoencoders_compute_the_same():
    whole, _ = build("autoencoder")
    folded, x = build("autoencoder_folded")
    # Fresh norms only divide by sqrt(1 + 1e-5); the weights are drawn after folding.
    with torch.no_grad():
        torch.testing.assert_close(whole(x), folded(x), rtol=1e-3, atol=1e-3)
