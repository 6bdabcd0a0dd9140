"""A network that needs no training, its data, and what can be wrong with them: labels are its own answers."""

import os
import time
from pathlib import Path

import torch
from torch import nn

from hwdse.errors import InputError


class Tiny(nn.Module):
    """Two convolutions, a pointwise one and a linear layer on 4x4 images."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.body = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.mix = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.body(x))
        return self.head(torch.relu(self.mix(x)).flatten(1))


def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = Tiny().eval()
        with torch.no_grad():
            network.head.weight.mul_(4.0)
    return network


def other_model():
    network = model()
    with torch.no_grad():
        network.body.weight[0, 0, 0, 0] += 1e-3
    return network


def images(seed, count):
    return torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def example():
    return images(0, 2)


def calibration():
    return [images(1, 16), images(2, 16)]


def other_calibration():
    return [images(7, 16), images(2, 16)]


def evaluation():
    network = model()
    with torch.no_grad():
        return [(x, network(x).argmax(-1)) for x in (images(3, 48), images(4, 48))]


def margin(outputs, targets):
    """Return how far the right class is ahead of the best other one."""
    right = outputs.gather(1, targets[:, None])[:, 0]
    return right - outputs.scatter(1, targets[:, None], -1e9).amax(1)


# What can be wrong.


def noisy_model():
    print("loading weights")  # noqa: T201  # as much of other people's code does
    return model()


def raising():
    raise ValueError("no such\nweights")


def leaving():
    raise SystemExit(7)


def explaining():
    raise InputError("expected the data file d.npz, got none; fetch it")


def needing(path):
    return path


def nothing():
    return []


def late_failure():
    yield images(1, 16)
    raise OSError("disk gone")


def number():
    return 5


def mismatched_weights():
    network = Tiny()
    network.load_state_dict({**model().state_dict(), "body.weight": torch.zeros(3, 3)})
    return network


def nan_weights():
    network = model()
    with torch.no_grad():
        network.mix.weight[0, 0] = float("nan")
    return network


class Branching(Tiny):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else self.head(x.flatten(1).repeat(1, 2))


def branching_model():
    return Branching().eval()


def two_examples():
    return images(0, 2), images(1, 2)


def nan_calibration():
    x = images(1, 16)
    x[3, 0, 1, 1] = float("nan")
    return [images(2, 16), x]


def infinite_calibration():
    return [images(2, 16) / 0.0]


def labelled_calibration():
    return evaluation()


def wide_calibration():
    return [torch.zeros(4, 1, 5, 5)]


def double_calibration():
    return [images(1, 16).double()]


def plain_evaluation():
    return [images(3, 48)]


def triple_evaluation():
    return [(images(3, 48), 1, 2)]


def wide_evaluation():
    return [(torch.zeros(4, 1, 5, 5), torch.zeros(4, dtype=torch.int64))]


def one_hot_evaluation():
    return [(x, nn.functional.one_hot(y, 4)) for x, y in evaluation()]


class Shuffled:
    """A loader that yields its batches in another order every time."""

    turn = 0

    def __iter__(self):
        self.turn += 1
        return iter(evaluation()[:: 1 if self.turn % 2 else -1])


def shuffled_evaluation():
    return Shuffled()


def nan_metric(outputs, targets):
    del outputs
    return torch.full((len(targets),), float("nan"))


def scalar_metric(outputs, targets):
    return (outputs.argmax(-1) == targets).float().mean()


def short_metric(outputs, targets):
    return (outputs.argmax(-1) == targets).float()[1:]


def list_metric(outputs, targets):
    del outputs
    return [1.0] * len(targets)


def failing_metric(outputs, targets):
    return outputs[:, targets[0] + 100]


_scored = 0


def held_top1(outputs, targets):
    """Return top-1, and wait for a signal once this process has scored as many batches as it may."""
    global _scored
    if _scored >= int(os.environ.get("TINY_HOLD_AFTER_BATCHES", "1000000")):
        Path(os.environ["TINY_HELD"]).touch()
        time.sleep(100.0)
    _scored += 1
    return (outputs.argmax(-1) == targets).float()
