import numpy as np
import pytest
import torch
from torch import nn

from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.evaluate.batches import check_batch


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.linear = nn.Linear(4, 3)

    def forward(self, tokens, scale):
        return self.linear(self.embedding(tokens).mean(1) * scale)


@pytest.fixture(scope="module")
def captured():
    return capture(Pair().eval(), (torch.zeros(2, 5, dtype=torch.int64), torch.ones(2, 4)))


def test_batches_of_any_size_are_taken(captured):
    for n in (1, 2, 7):
        assert check_batch(captured, (torch.zeros(n, 5, dtype=torch.int64), torch.ones(n, 4)), "evaluation") == n
    assert check_batch(captured, [torch.zeros(3, 5, dtype=torch.int32), torch.ones(3, 4)], "evaluation") == 3


@pytest.mark.parametrize(
    ("batch", "sentence"),
    [
        (torch.zeros(2, 5, dtype=torch.int64), r"got 1 \(int64 of shape \(2, 5\)\)"),
        ((torch.zeros(2, 5), torch.ones(2, 4)), r"got 2 \(float32 of shape \(2, 5\), float32 of shape \(2, 4\)\)"),
        ((torch.zeros(2, 6, dtype=torch.int64), torch.ones(2, 4)), r"got 2 \(int64 of shape \(2, 6\)"),
        ((torch.zeros(2, 5, dtype=torch.bool), torch.ones(2, 4)), r"got 2 \(bool of shape"),
        ((torch.zeros(5, dtype=torch.int64), torch.ones(2, 4)), r"got 2 \(int64 of shape \(5\)"),
        ((np.zeros((2, 5)), np.ones((2, 4))), "got a tuple of ndarray, ndarray"),
        ((), r"got 0 \(\)"),
        (3, "got int"),
        ({"tokens": 1}, "got dict"),
    ],
)
def test_what_the_network_does_not_take_is_described(captured, batch, sentence):
    with pytest.raises(InputError, match="expected calibration batches of 2 input tensor.*" + sentence) as caught:
        check_batch(captured, batch, "calibration")
    assert "int64 of shape (n, 5), float32 of shape (n, 4)" in str(caught.value)
