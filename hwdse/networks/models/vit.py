"""Vision transformers; DeiT has the same shapes."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional

from hwdse.networks.models.parts import Entry, Residual, sequence

__all__ = ["NETWORKS", "VisionTransformer"]

EPSILON = 1e-6


class _Attention(nn.Module):
    """Attention of all tokens to all; queries, keys and values come from one linear."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.mixed = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the shape of ``x (n, tokens, width)``."""
        # (3, n, heads, tokens, size)
        q, k, v = self.mixed(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        y: torch.Tensor = self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return y


class VisionTransformer(nn.Module):
    """A transformer over patches of 16x16 pixels with a token for the class: Dosovitskiy et al. 2021, table 1.

    Its two smaller sizes are those of Touvron et al. 2021, table 1.
    """

    def __init__(self, width: int, heads: int, *, depth: int = 12, patch: int = 16, side: int = 224) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, (side // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(self._block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.head = nn.Linear(width, 1000)

    @staticmethod
    def _block(width: int, heads: int) -> nn.Sequential:
        """Return attention and a feed-forward part; each reads the normalised stream and adds to it."""
        attention = sequence(norm=nn.LayerNorm(width, eps=EPSILON), attention=_Attention(width, heads))
        feed_forward = sequence(
            norm=nn.LayerNorm(width, eps=EPSILON),
            up=nn.Linear(width, 4 * width),
            act=nn.GELU(),
            down=nn.Linear(4 * width, width),
        )
        return sequence(attend=Residual(attention), feed=Residual(feed_forward))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits ``(n, 1000)`` of images ``(n, 3, side, side)``."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(tokens.shape[0], -1, -1), tokens], dim=1) + self.position
        logits: torch.Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits


NETWORKS = {
    "vit_tiny": Entry(partial(VisionTransformer, 192, 3)),
    "vit_small": Entry(partial(VisionTransformer, 384, 6)),
    "vit_base": Entry(partial(VisionTransformer, 768, 12)),
}
