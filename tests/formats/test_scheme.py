"""Schemes: equal keys for equal schemes alone, and block sizes only where there are blocks."""

import itertools

import pytest

from hwdse.errors import InputError
from hwdse.formats import Granularity, Scheme, Symmetry


def test_schemes_have_different_keys_unless_they_are_equal() -> None:
    shared = [
        (Granularity.PER_TENSOR, 0),
        (Granularity.PER_CHANNEL, 0),
        *((Granularity.PER_BLOCK, n) for n in (1, 32, 64)),
    ]
    choices = itertools.product(Symmetry, Symmetry, shared, (False, True), (False, True))
    schemes = [Scheme(w, a, granularity, *flags, block_size=size) for w, a, (granularity, size), *flags in choices]
    assert len({scheme.key for scheme in schemes}) == len(set(schemes)) == len(schemes) == 80


@pytest.mark.parametrize(
    ("scheme", "key"),
    [
        (Scheme(full_range=True), "w-symmetric-per_channel-full.a-symmetric-unsigned"),
        (
            Scheme(Symmetry.AFFINE, Symmetry.AFFINE, Granularity.PER_TENSOR, unsigned_activations=False),
            "w-affine-per_tensor-restricted.a-affine-signed",
        ),
        (
            Scheme(weight_granularity=Granularity.PER_BLOCK, block_size=64),
            "w-symmetric-per_block64-restricted.a-symmetric-unsigned",
        ),
        (
            Scheme(activations=Symmetry.AFFINE, quantized_outputs=True),
            "w-symmetric-per_channel-restricted.a-affine-unsigned.o-quantized",
        ),
    ],
)
def test_the_key_says_all(scheme: Scheme, key: str) -> None:
    assert scheme.key == key


@pytest.mark.parametrize(
    ("granularity", "size"),
    [
        (Granularity.PER_BLOCK, 0),
        (Granularity.PER_BLOCK, -1),
        (Granularity.PER_CHANNEL, 64),
        (Granularity.PER_TENSOR, 1),
        (Granularity.PER_CHANNEL, -64),
    ],
)
def test_a_block_size_needs_blocks_and_blocks_a_size(granularity: Granularity, size: int) -> None:
    sentence = (
        "expected a block_size of at least 1 with per_block weights and none otherwise, got "
        f"{size} with {granularity}; change one of them"
    )
    with pytest.raises(InputError, match=f"^{sentence}$"):
        Scheme(weight_granularity=granularity, block_size=size)
