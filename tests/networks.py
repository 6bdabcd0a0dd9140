"""Networks that the tests share: one small module per way of writing a network, with its example inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from hwdse.capture import Capture, capture
from hwdse.factories import load_factory
from hwdse.quantize.program import Program

_MODELS = Path(__file__).parents[1] / "experiments"


class MLP(nn.Module):
    """Two linears with a 1-d batch norm and an in-place ReLU between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 20)
        self.norm = nn.BatchNorm1d(20)
        self.second = nn.Linear(20, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(functional.relu(self.norm(self.first(x)), inplace=True))


class Residual(nn.Module):
    """A small residual network: stem, a plain block, a strided block with a 1x1 shortcut, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.a1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.a1_norm = nn.BatchNorm2d(8)
        self.a2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.a2_norm = nn.BatchNorm2d(8)
        self.b1 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.b1_norm = nn.BatchNorm2d(16)
        self.b2 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.b2_norm = nn.BatchNorm2d(16)
        self.short = nn.Conv2d(8, 16, 1, stride=2, bias=False)
        self.short_norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem_norm(self.stem(x)).relu_()
        y = self.a1_norm(self.a1(x)).relu_()
        x = (self.a2_norm(self.a2(y)) + x).relu_()
        y = self.b1_norm(self.b1(x)).relu_()
        x = functional.relu(self.b2_norm(self.b2(y)) + self.short_norm(self.short(x)))
        return self.head(x.mean((2, 3)))


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x * (x.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt())


class Decoder(nn.Module):
    """One pre-norm decoder block: grouped-query attention with rotary positions, then SwiGLU."""

    def __init__(self, width: int, heads: int, key_heads: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.key_heads, self.size = heads, key_heads, width // heads
        self.attention_norm, self.feed_norm = RMSNorm(width), RMSNorm(width)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, key_heads * self.size, bias=False)
        self.v = nn.Linear(width, key_heads * self.size, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def _split(self, x: torch.Tensor, heads: int) -> torch.Tensor:
        return x.unflatten(-1, (heads, self.size)).transpose(1, 2)

    def forward(self, x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        y = self.attention_norm(x)
        q, k = (rotate(self._split(p(y), h), turn) for p, h in ((self.q, self.heads), (self.k, self.key_heads)))
        v = self._split(self.v(y), self.key_heads)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(mixed.transpose(1, 2).flatten(-2))
        y = self.feed_norm(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


def rotate(x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Turn pairs of neighbouring features by an angle that grows with the position (RoPE)."""
    cosine, sine = turn
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), -1).flatten(-2)


class Llama(nn.Module):
    """A decoder-only language model whose head shares the embedding's weights."""

    def __init__(self, *, words: int = 40, width: int = 16, blocks: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.blocks = nn.ModuleList(Decoder(width, heads=4, key_heads=2, hidden=24) for _ in range(blocks))
        self.norm = RMSNorm(width)
        self.half = width // 4 // 2

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        rates = 10000.0 ** (-torch.arange(self.half) / self.half)
        angles = torch.arange(words.shape[1])[:, None] * rates
        x = self.embedding(words)
        for block in self.blocks:
            x = block(x, (angles.cos(), angles.sin()))
        return functional.linear(self.norm(x), self.embedding.weight)


class ViT(nn.Module):
    """A vision transformer: patches by a convolution, a class token, one block with the framework's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.positions = nn.Parameter(torch.randn(1, 5, 16))
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.grow, self.shrink = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.shrink(functional.gelu(self.grow(self.norm2(x))))
        return self.head(x[:, 0])


class PackedAttention(nn.Module):
    """Attention whose queries, keys and values come from one linear, with an additive causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        mask = torch.full((x.shape[1], x.shape[1]), -math.inf).triu(1)
        return self.out((q @ k.transpose(-2, -1) / math.sqrt(8) + mask).softmax(-1) @ v)


class Reused(nn.Module):
    """One convolution applied three times, one activation module shared by all."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.loop = nn.Conv2d(6, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.stem(x))
        for _ in range(3):
            x = self.act(self.loop(x))
        return x.mean((2, 3))


class Tied(nn.Module):
    """An autoencoder whose decoder reads the encoder's weights transposed, each with a bias of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 10))
        self.low, self.high = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        code = functional.linear(x, self.weight, self.low).relu()
        return functional.linear(code, self.weight.t(), self.high)


class Inception(nn.Module):
    """Three branches, one of them a max pool, concatenated and read by a 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(4, 4, 1)
        self.three = nn.Conv2d(4, 6, 3, padding=1)
        self.after = nn.Conv2d(14, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = functional.max_pool2d(x, 3, stride=1, padding=1)
        return self.after(torch.cat([self.one(x).relu_(), self.three(x).relu_(), pooled], 1))


class Functional(nn.Module):
    """Convolutions written as functions: grouped, dilated, strided, one-dimensional, with odd paddings."""

    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(8, 2, 3, 5))
        self.w2 = nn.Parameter(torch.randn(4, 8, 3, 3))
        self.b2 = nn.Parameter(torch.randn(4))
        self.line = nn.Conv1d(4, 12, 3, stride=2, groups=4, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.conv2d(x, self.w1, stride=(2, 1), padding=(1, 2), groups=2)
        x = functional.conv2d(x.relu(), self.w2, self.b2, padding="same", dilation=2)
        return self.line(functional.pad(x, (1, 0)).flatten(2))


class OddNorms(nn.Module):
    """Batch norm first, before a convolution, twice on one shared convolution, and without scale and shift."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.before, self.twin = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.shared = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.plain = nn.Conv2d(4, 6, 1)
        self.bare = nn.BatchNorm2d(6, affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.first(x).relu_())
        x = self.shared(self.before(x.relu_()))
        x = self.twin(self.shared(self.before(x)).relu_())
        return self.bare(self.plain(x)).relu_()


class Products(nn.Module):
    """Weights as columns: ``addmm``, ``@`` and ``einsum``, and a product of two activations by ``einsum``."""

    def __init__(self) -> None:
        super().__init__()
        self.columns = nn.Parameter(torch.randn(6, 9))
        self.shift = nn.Parameter(torch.randn(9))
        self.matrix = nn.Parameter(torch.randn(9, 8))
        self.mix = nn.Parameter(torch.randn(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.addmm(self.shift, x, self.columns).relu() @ self.matrix
        x = torch.einsum("bd,de->be", x, self.mix).unflatten(1, (2, 2))
        return torch.einsum("bij,bkj->bik", x, x.tanh())


class Normed(nn.Module):
    """Weight-normed layers, one of them with a batch norm behind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = parametrizations.weight_norm(nn.Conv2d(3, 6, 3))
        self.norm = nn.BatchNorm2d(6)
        self.head = parametrizations.weight_norm(nn.Linear(6, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.conv(x)).relu().amax((2, 3)))


class Siamese(nn.Module):
    """Two inputs, of which one is changed in place, and a dictionary of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, 4, 3)
        self.words = nn.Linear(5, 4)

    def forward(self, image: torch.Tensor, words: torch.Tensor) -> dict[str, Any]:
        a = self.image(image.clone().relu_()).mean((2, 3))
        b = self.words(words)
        return {"both": (a * b, a), "words": [b]}


class Aliases(nn.Module):
    """Operators whose result shares memory with their operand, each followed by one that writes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(6, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.line(x)
        diagonal = y.diagonal(dim1=1, dim2=2).relu()
        windows = y.unfold(2, 3, 3).flatten(2).sigmoid()
        same = (+y).mul(2.0) + y.to(torch.float32).tanh()
        return self.last(windows + same + y) + diagonal.sum(-1)[:, None, None]


@dataclass(frozen=True)
class Case:
    """A network with the shapes of its inputs, without the batch."""

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    dynamic_dims: tuple[int, ...] = (0,)
    words: int = 0

    def inputs(self, batch: int, *, length: int = 0, seed: int = 0) -> tuple[torch.Tensor, ...]:
        """Return random inputs; ``length`` replaces the length of a sequence."""
        generator = torch.Generator().manual_seed(seed)
        shapes = [(batch, length or s[0], *s[1:]) if 1 in self.dynamic_dims else (batch, *s) for s in self.shapes]
        if self.words:
            return tuple(torch.randint(self.words, shape, generator=generator) for shape in shapes)
        return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def _published(name: str) -> nn.Module:
    module: nn.Module = load_factory(f"models.py:{name}", folder=_MODELS)()
    return module


CASES: dict[str, Case] = {
    "mlp": Case(MLP, ((12,),)),
    "residual": Case(Residual, ((3, 12, 12),)),
    "resnet20": Case(partial(_published, "ResNet20"), ((3, 32, 32),)),
    "dscnn": Case(partial(_published, "DSCNN"), ((1, 49, 10),)),
    "llama": Case(Llama, ((6,),), dynamic_dims=(0, 1), words=40),
    "vit": Case(ViT, ((3, 8, 8),)),
    "packed": Case(PackedAttention, ((6, 8),), dynamic_dims=(0, 1)),
    "encoder": Case(
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.3), ((5, 8),), dynamic_dims=(0, 1)
    ),
    "reused": Case(Reused, ((3, 8, 8),)),
    "tied": Case(Tied, ((10,),)),
    "inception": Case(Inception, ((4, 8, 8),)),
    "functional": Case(Functional, ((4, 9, 11),)),
    "odd_norms": Case(OddNorms, ((4, 7, 7),)),
    "products": Case(Products, ((6,),)),
    "normed": Case(Normed, ((3, 9, 9),)),
    "siamese": Case(Siamese, ((3, 6, 6), (5,))),
    "aliases": Case(Aliases, ((6, 6),)),
}
"""Every network by name."""


@cache
def model(name: str) -> nn.Module:
    """Return the network called ``name`` with random weights and norms, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(sum(map(ord, name)))
        module = CASES[name].make()
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                norm.running_mean.uniform_(-0.5, 0.5)
                norm.running_var.uniform_(0.5, 2.0)
                if norm.affine:
                    nn.init.uniform_(norm.weight, 0.5, 1.5)
                    nn.init.uniform_(norm.bias, -0.5, 0.5)
    return module.eval()


@cache
def captured(name: str) -> Capture:
    """Return the capture of :func:`model`, by an example of one sample."""
    case = CASES[name]
    return capture(model(name), case.inputs(1), dynamic_dims=case.dynamic_dims)


@cache
def program(name: str) -> Program:
    """Return the compiled program of :func:`captured`."""
    return Program.of(captured(name))
