"""The networks of MLPerf Tiny [Banbury2021]_; their convolutions have biases before the batch norms, too."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from torch import nn
from torch.nn.utils import fuse_linear_bn_eval

from hwdse.networks.models.mobilenet import mobilenet_v1
from hwdse.networks.models.parts import Entry, classifier, sequence, unit
from hwdse.networks.models.resnet import basic

__all__ = ["NETWORKS", "autoencoder", "ds_cnn", "resnet8", "visual_wake_words"]

WIDTHS = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640)


def resnet8() -> nn.Sequential:
    """Return the residual network for image classification; its shortcuts have no norm."""
    channels, blocks = 16, []
    for width in (16, 32, 64):
        grows = width != channels
        short = nn.Conv2d(channels, width, 1, 2) if grows else None
        blocks.append(basic(channels, width, stride=2 if grows else 1, short=short))
        channels = width
    network = sequence(stem=unit(3, 16, 3), blocks=nn.Sequential(*blocks), head=classifier(channels, 10))
    return _with_biases(network)


def ds_cnn() -> nn.Sequential:
    """Return the network of depthwise separable convolutions for keyword spotting (Zhang et al. 2017)."""
    # "Same" padding of the even kernel is 4 rows above and 5 below; 5 on both sides give as many outputs.
    stem = sequence(conv=nn.Conv2d(1, 64, (10, 4), 2, (5, 1)), norm=nn.BatchNorm2d(64), act=nn.ReLU())
    blocks = [sequence(filter=unit(64, 64, 3, groups=64), mix=unit(64, 64)) for _ in range(4)]
    network = sequence(stem=stem, blocks=nn.Sequential(*blocks), head=classifier(64, 12))
    return _with_biases(network)


def visual_wake_words() -> nn.Sequential:
    """Return the MobileNet of a quarter of the channels that tells whether a person is in an image of 96x96 pixels."""
    return _with_biases(mobilenet_v1(0.25, classes=2, act=nn.ReLU))


def autoencoder(*, folded: bool = False) -> nn.Sequential:
    """Return the autoencoder for anomaly detection, with its batch norms or with these folded into its linears."""
    *hidden, last = pairwise(WIDTHS)
    layers: list[nn.Module] = []
    for width_in, width_out in hidden:
        linear, norm = nn.Linear(width_in, width_out).eval(), nn.BatchNorm1d(width_out).eval()
        if folded:
            layers.append(sequence(linear=fuse_linear_bn_eval(linear, norm), act=nn.ReLU()))
        else:
            layers.append(sequence(linear=linear, norm=norm, act=nn.ReLU()))
    return sequence(layers=nn.Sequential(*layers), last=nn.Linear(*last))


def _with_biases(network: nn.Sequential) -> nn.Sequential:
    """Return ``network`` with a bias in every convolution, before the batch norm too."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.bias is None:
            module.bias = nn.Parameter(module.weight.new_zeros(module.out_channels))
    return network


NETWORKS = {
    "autoencoder": Entry(autoencoder, (640,)),
    "autoencoder_folded": Entry(partial(autoencoder, folded=True), (640,)),
    "ds_cnn": Entry(ds_cnn, (1, 49, 10)),
    "mobilenet_v1_0.25_96": Entry(visual_wake_words, (3, 96, 96)),
    "resnet8": Entry(resnet8, (3, 32, 32)),
}
