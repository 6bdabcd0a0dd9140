from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from hwdse.formats import Precision
from hwdse.hardware.measure.fit import Line, fit_line, fit_rates

FP32, W8A8 = Precision.parse("fp32"), Precision.parse("W8A8")


def test_a_line_through_two_points_is_exact() -> None:
    line = fit_line([100_000, 1_000_000], [5.0, 23.0])
    assert (line.us, line.us_per_melement, line.residual) == pytest.approx((3.0, 20.0, 0.0))
    assert line.time_us(500_000) == pytest.approx(13.0)


def test_a_line_minimises_the_squared_relative_errors() -> None:
    elements, times = np.array([3e3, 5e4, 3e5, 1.2e6]), np.array([0.4, 2.0, 13.0, 75.0])
    line = fit_line(elements.astype(int).tolist(), times.tolist())

    def loss(x: np.ndarray) -> float:
        return float((((x[0] + x[1] * elements * 1e-6) / times - 1) ** 2).sum())

    best = minimize(loss, [0.1, 50.0], bounds=[(0, None), (0, None)], tol=1e-14)
    assert loss(np.array([line.us, line.us_per_melement])) == pytest.approx(best.fun, rel=1e-6)
    errors = (line.us + line.us_per_melement * elements * 1e-6) / times - 1
    assert line.residual == pytest.approx(np.abs(errors).max())


def test_no_term_is_negative() -> None:
    assert fit_line([100, 200], [1.0, 3.0]).us == 0.0
    assert fit_line([100, 200], [3.0, 1.0]).us_per_melement == 0.0


def test_lines_one_after_the_other_add_up() -> None:
    both = Line(1.0, 10.0, 0.1) + Line(2.0, 5.0, 0.3)
    assert both == Line(3.0, 15.0, 0.3)


def test_rates_are_found_again() -> None:
    generator = np.random.default_rng(0)
    groups = [("conv", FP32)] * 10 + [("conv", W8A8)] * 10 + [("linear", FP32)] * 3
    rate = {("conv", FP32): 50.0, ("conv", W8A8): 200.0, ("linear", FP32): 25.0}
    macs = generator.integers(1e5, 1e8, len(groups))
    times = [4.0 + m / (1e3 * rate[g]) for g, m in zip(groups, macs, strict=True)]
    fit = fit_rates(groups, macs.tolist(), times)
    assert fit.us_per_layer == pytest.approx(4.0)
    assert dict(fit.gmac_per_s) == pytest.approx(rate)
    assert dict(fit.counts) == {("conv", FP32): 10, ("conv", W8A8): 10, ("linear", FP32): 3}
    assert all(np.abs(errors).max() < 1e-6 for errors in fit.errors.values())


def test_errors_are_those_of_shapes_that_the_fit_did_not_see() -> None:
    """Without a constant the fit of one group is a weighted mean, so that leaving one out has a closed form."""
    macs, times = np.array([1e6, 2e6, 3e6, 4e6, 5e6]), np.array([10.0, 26.0, 33.0, 52.0, 70.0])
    fit = fit_rates([("conv", FP32)] * 5, macs.astype(int).tolist(), times.tolist())
    assert fit.us_per_layer == 0.0  # times grow faster than the work
    work = macs / times
    for i, error in enumerate(fit.errors["conv", FP32]):
        others = np.delete(work, i)
        per_mac = others.sum() / (others**2).sum()
        assert error == pytest.approx(per_mac * work[i] - 1)


def test_a_group_of_one_has_no_error_and_a_rate() -> None:
    fit = fit_rates([("conv", FP32)] * 6 + [("linear", FP32)], [10**6] * 6 + [2 * 10**6], [20.0] * 6 + [40.0])
    assert fit.errors["linear", FP32].size == 0
    assert fit.gmac_per_s["linear", FP32] > 0


def test_a_rate_stays_above_zero_where_the_constant_explains_all() -> None:
    fit = fit_rates([("conv", FP32)] * 3 + [("linear", FP32)] * 2, [1, 2, 3, 10, 20], [9.0, 9.0, 9.0, 5.0, 5.0])
    assert all(np.isfinite(rate) and rate > 0 for rate in fit.gmac_per_s.values())
