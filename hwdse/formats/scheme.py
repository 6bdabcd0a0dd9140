"""How a device maps tensors onto number formats."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hwdse.errors import InputError

__all__ = ["Granularity", "Scheme", "Symmetry"]


class Symmetry(StrEnum):
    """How a range is centred: ``symmetric`` around zero (zero point 0), or ``affine`` with a zero point."""

    SYMMETRIC = "symmetric"
    AFFINE = "affine"


class Granularity(StrEnum):
    """How many values share one scale."""

    PER_TENSOR = "per_tensor"
    PER_CHANNEL = "per_channel"
    PER_BLOCK = "per_block"


@dataclass(frozen=True)
class Scheme:
    """How a device represents numbers; accuracy depends on (configuration, scheme) and on nothing else of a device.

    Attributes
    ----------
    weights, activations
        Symmetric or affine grids.
    weight_granularity
        One scale per tensor, per output channel, or per block of weights that follow each other within an output
        channel. Activations always have one scale per tensor.
    full_range
        Weights use the lowest code (-8 for int4) too; the usual choice on silicon is the restricted, symmetric range.
    unsigned_activations
        A tensor that is never negative is stored unsigned.
    block_size
        Weights per block; 0 unless the granularity is per block. A channel's last block may be shorter.
    quantized_outputs
        A convolution of integers writes integers, too: its result, after a ReLU or clip that only it feeds, is rounded
        to its own activation format where no reader rounds it.

    Rounding is to nearest, ties to even.

    Raises
    ------
    InputError
        If block size and granularity do not go together.
    """

    weights: Symmetry = Symmetry.SYMMETRIC
    activations: Symmetry = Symmetry.SYMMETRIC
    weight_granularity: Granularity = Granularity.PER_CHANNEL
    full_range: bool = False
    unsigned_activations: bool = True
    block_size: int = 0
    quantized_outputs: bool = False

    def __post_init__(self) -> None:
        if (self.block_size > 0) != (self.weight_granularity is Granularity.PER_BLOCK) or self.block_size < 0:
            raise InputError(
                "expected a block_size of at least 1 with per_block weights and none otherwise, got "
                f"{self.block_size} with {self.weight_granularity}; change one of them"
            )

    @property
    def key(self) -> str:
        """Text that is equal for equal schemes, for fingerprints and tables.

        >>> Scheme().key
        'w-symmetric-per_channel-restricted.a-symmetric-unsigned'
        """
        extent = "full" if self.full_range else "restricted"
        sign = "unsigned" if self.unsigned_activations else "signed"
        shared = f"{self.weight_granularity}{self.block_size or ''}"
        outputs = ".o-quantized" if self.quantized_outputs else ""
        return f"w-{self.weights}-{shared}-{extent}.a-{self.activations}-{sign}{outputs}"
