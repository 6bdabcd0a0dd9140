"""Shapes per sample, and places in the user's code."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from hwdse.capture import capture
from hwdse.capture.flow import where

Written = Callable[..., nn.Module]


def test_a_mean_over_the_batch_has_no_batch(written: Written) -> None:
    model = written(lambda self, x: self.line(x.mean(0)) + self.line(x), line=nn.Linear(4, 3))
    shapes = [(layer.input_shape, layer.output_shape, layer.macs) for layer in capture(model, torch.randn(2, 4)).layers]
    assert shapes == [((4,), (3,), 12)] * 2


def test_a_batch_in_another_dimension_is_divided_out(written: Written) -> None:
    model = written(lambda self, x: self.line(x.flatten(0, 1)), line=nn.Linear(4, 3))
    layer = capture(model, torch.randn(2, 5, 4)).layers[0]
    assert (layer.input_shape, layer.output_shape, layer.macs) == ((5, 4), (5, 3), 60)
    turned = written(lambda self, x: self.line(x.transpose(0, 1)), line=nn.Linear(4, 3))
    assert capture(turned, torch.randn(2, 5, 4)).layers[0].input_shape == (5, 4)


def test_the_place_is_the_users_own() -> None:
    trace = 'File "/site/torch/nn/a.py", line 1\nFile "/home/net.py", line 7, in f\nFile "/site/torch/nn/b.py", line 2'
    assert where(trace) == " at /home/net.py:7"
    assert where('File "/site/torch/nn/b.py", line 2') == " at /site/torch/nn/b.py:2"
    assert where(None) == where("") == ""
