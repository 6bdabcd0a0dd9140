"""The networks of the experiments, with trained weights from the files under ``$HWDSE_DATA``."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from hwdse.factories import load_factory

_data_file = load_factory("data.py:data_file", folder=Path(__file__).parent)


class _Residual(nn.Module):
    """Two 3x3 convolutions; a shortcut that changes size drops pixels and pads channels with zeros (option A)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.stride = stride
        self.added = channels_out - channels_in

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        if self.added:
            side = self.added // 2
            shortcut = functional.pad(x[..., :: self.stride, :: self.stride], (0, 0, 0, 0, side, self.added - side))
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + shortcut)


class ResNet20(nn.Module):
    """ResNet-20 for 32x32 images (He et al. 2016, section 4.2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(_Residual(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(_Residual(16, 32, 2), _Residual(32, 32, 1), _Residual(32, 32, 1))
        self.layer3 = nn.Sequential(_Residual(32, 64, 2), _Residual(64, 64, 1), _Residual(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits ``(n, 10)`` of images ``(n, 3, 32, 32)``."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.layer3(self.layer2(self.layer1(y)))
        logits: torch.Tensor = self.linear(y.mean((2, 3)))
        return logits


class DSCNN(nn.Module):
    """The depthwise separable network for keyword spotting of MLPerf Tiny (Zhang et al. 2017)."""

    def __init__(self, classes: int = 12) -> None:
        super().__init__()
        # The reference pads "same": one column on either side, four rows above and five below.
        self.stem = nn.Sequential(
            nn.ZeroPad2d((1, 1, 4, 5)), nn.Conv2d(1, 64, (10, 4), 2), nn.BatchNorm2d(64, eps=1e-3), nn.ReLU()
        )
        self.blocks = nn.Sequential(
            *(nn.Sequential(self._unit(3, groups=64), self._unit(1, groups=1)) for _ in range(4))
        )
        self.fc = nn.Linear(64, classes)

    @staticmethod
    def _unit(kernel: int, *, groups: int) -> nn.Sequential:
        convolution = nn.Conv2d(64, 64, kernel, padding=kernel // 2, groups=groups)
        return nn.Sequential(convolution, nn.BatchNorm2d(64, eps=1e-3), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits ``(n, 12)`` of features ``(n, 1, 49, 10)``."""
        logits: torch.Tensor = self.fc(self.blocks(self.stem(x)).mean((2, 3)))
        return logits


class _Block(nn.Module):
    """Attention, then a gated feed-forward part (SwiGLU); each reads the normalised stream and adds to it."""

    def __init__(self, width: int, heads: int, shared_heads: int, hidden: int) -> None:
        super().__init__()
        self.size = width // heads
        self.n1, self.n2 = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.wq = nn.Linear(width, width, bias=False)
        self.wk, self.wv = (nn.Linear(width, shared_heads * self.size, bias=False) for _ in range(2))
        self.wo = nn.Linear(width, width, bias=False)
        self.w1, self.w3 = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.w2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
        y = self.n1(x)
        # One head after another: (n, heads, length, size); heads of queries in a row share keys and values.
        q, k, v = (w(y).unflatten(-1, (-1, self.size)).transpose(1, 2) for w in (self.wq, self.wk, self.wv))
        q, k = _turned(q, cosine, sine), _turned(k, cosine, sine)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.wo(mixed.transpose(1, 2).flatten(2))
        y = self.n2(x)
        delta: torch.Tensor = self.w2(functional.silu(self.w1(y)) * self.w3(y))
        return x + delta


def _turned(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Return ``x (..., length, size)`` with each pair (even, odd) of features turned by its angle (RoPE)."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cosine - odd * sine, odd * cosine + even * sine), dim=-1).flatten(-2)


class Stories260K(nn.Module):
    """A small Llama (Touvron et al. 2023): a decoder of tokens whose head shares the embedding's weights.

    Grouped queries (Ainslie et al. 2023), rotary positions (Su et al. 2021), SwiGLU (Shazeer 2020) and norms by the
    root mean square (Zhang and Sennrich 2019).
    """

    cosine: torch.Tensor
    sine: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        width, heads, tokens, length = 64, 8, 512, 512
        self.tok = nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList(_Block(width, heads, shared_heads=4, hidden=172) for _ in range(5))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = nn.Linear(width, tokens, bias=False)
        self.head.weight = self.tok.weight
        pairs = width // heads // 2
        angles = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(pairs) / pairs)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits ``(n, length, 512)`` of the token after each of ``tokens (n, length)``, at most 512."""
        cosine, sine = self.cosine[: tokens.shape[1]], self.sine[: tokens.shape[1]]
        x = self.tok(tokens)
        for block in self.blocks:
            x = block(x, cosine, sine)
        logits: torch.Tensor = self.head(self.norm(x))
        return logits


def _loaded(model: nn.Module, name: str) -> nn.Module:
    missing, unexpected = model.load_state_dict(load_file(_data_file(name)), strict=False)
    # Counters of batches seen are of no use after training, and a shared parameter is in a file by its first name.
    own = {key for key, _ in (*model.named_parameters(), *model.named_buffers())}
    wrong = [key for key in missing if key in own and not key.endswith("num_batches_tracked")] + list(unexpected)
    if wrong:
        raise ValueError(f"expected the weights of {type(model).__name__} in {name}, got other keys: {wrong[:3]}")
    return model.eval()


def resnet20() -> nn.Module:
    """Return ResNet-20 trained on CIFAR-10."""
    return _loaded(ResNet20(), "cifar10_resnet20/model.safetensors")


def resnet20_example() -> torch.Tensor:
    """Return example inputs of :func:`resnet20`."""
    return torch.zeros(2, 3, 32, 32)


def dscnn() -> nn.Module:
    """Return the DS-CNN trained on Speech Commands."""
    return _loaded(DSCNN(), "mlperf_tiny_kws_dscnn/model.safetensors")


def dscnn_example() -> torch.Tensor:
    """Return example inputs of :func:`dscnn`."""
    return torch.zeros(2, 1, 49, 10)


def stories260k() -> nn.Module:
    """Return the small Llama trained on TinyStories (Eldan and Li 2023)."""
    return _loaded(Stories260K(), "llm_stories260k/model.safetensors")


def stories260k_example() -> torch.Tensor:
    """Return example inputs of :func:`stories260k`: 128 tokens, the length that costs are predicted for."""
    return torch.zeros(2, 128, dtype=torch.int64)
