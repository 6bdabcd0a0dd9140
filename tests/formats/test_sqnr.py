"""The error of codebooks on known distributions, at the best scale, against the published and the computed tables."""

import csv
from pathlib import Path

import numpy as np
import pytest

from hwdse.calibrate.codebook import lloyd_max
from hwdse.formats import Levels, Scheme, parse
from hwdse.formats.normal_float import normal_float_values

GOLDEN = Path(__file__).parents[1] / "golden" / "sqnr_db.csv"
ROWS = list(csv.DictReader(line for line in GOLDEN.read_text().splitlines() if not line.startswith("#")))
ROUNDED_DB = 0.05  # the tables have one decimal
SCALES_DB = 0.02  # the best of finitely many scales
COUNT = 2_000_000


def midrise(bits):
    return np.arange(2**bits) - (2**bits - 1) / 2


def fixed_values(codebook, bits):
    """The levels of a row that are not learned."""
    if codebook == "midrise":
        return midrise(bits)
    if codebook == "nf":
        return normal_float_values(bits, 1.0 - 0.5 * (1 / 2**bits + 1 / (2**bits - 1)))
    if codebook in ("int", "full", "minmax"):
        return Levels.of_weights(parse(f"int{bits}"), Scheme(full_range=codebook == "full")).values
    return parse(codebook).values


def sqnr_db(quantiles, codebook, bits):
    if codebook == "lloyd":
        return quantiles.sqnr_db(lloyd_max(quantiles.values, np.ones(COUNT), 2**bits))
    values = fixed_values(codebook, bits)
    if codebook == "minmax":
        return quantiles.sqnr_db(values * (quantiles.values[-1] / values[-1]))
    anchor = 1.0 if codebook.startswith("posit") else values[-1]
    return quantiles.best_sqnr_db(values, anchor)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['codebook']}-{row['bits']}")
def test_the_best_sqnr_of_a_codebook(quantiles, row):
    for name, distribution in quantiles(COUNT).items():
        found = sqnr_db(distribution, row["codebook"], int(row["bits"]))
        assert found == pytest.approx(float(row[name]), abs=ROUNDED_DB + SCALES_DB), name


@pytest.mark.parametrize(
    ("bits", "learned_db", "midrise_db"),
    [(2, 9.30, 9.25), (3, 14.62, 14.27), (4, 20.22, 19.38), (5, 26.01, 24.57), (6, 31.91, 29.83)],
)
def test_the_gauss_quantizers_of_max(quantiles, bits, learned_db, midrise_db):
    # J. Max, "Quantizing for minimum distortion", 1960: tables I (any levels) and II (equally spaced).
    gauss = quantiles(COUNT)["gauss"]
    assert sqnr_db(gauss, "lloyd", bits) == pytest.approx(learned_db, abs=0.02)
    assert sqnr_db(gauss, "midrise", bits) == pytest.approx(midrise_db, abs=0.02)
