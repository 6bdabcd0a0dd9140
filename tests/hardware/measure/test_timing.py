from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain, repeat

import numpy as np
import pytest

from hwdse.errors import InputError
from hwdse.hardware.measure.timing import Harness, pinned, reference_kernel


def harness(clock, **changes) -> Harness:
    options = {"seconds_per_pass": 0.01, "clock": clock, "reference": clock.work("reference", 20.0)}
    return Harness(**(options | changes))


def by_pass(*times: float) -> Iterator[float]:
    """Yield each time for as long as a pass of 10 ms goes on: the warm-up, then samples until it is over."""
    for us in times:
        yield from repeat(us, 1 + int(np.ceil(10_000 / us)))


def test_minimum_tenth_percentile_and_count_are_those_of_the_samples(clock) -> None:
    times = chain([500.0], np.linspace(100, 200, 67))  # the warm-up, then 67 samples of 150 us on average
    timing = harness(clock, passes=1, most_passes=1).time([clock.work("a", lambda: next(times))])[0]
    samples = np.linspace(100, 200, 67)
    assert timing.minimum_us == pytest.approx(100)
    assert timing.p10_us == pytest.approx(np.percentile(samples, 10))
    assert timing.count == 67
    assert (timing.passes, timing.spread, timing.drift, timing.is_stable) == (1, 0.0, 0.0, True)


def test_the_tenth_percentile_is_that_of_the_quieter_pass(clock) -> None:
    noisy = [100.0, *np.tile([100.0, 300.0, 300.0, 300.0, 300.0, 300.0, 300.0, 300.0, 300.0, 300.0, 300.0], 4)]
    times = chain(noisy[:40], repeat(101.0))
    timing = harness(clock).time([clock.work("a", lambda: next(times))])[0]
    assert (timing.minimum_us, timing.passes) == (pytest.approx(100), 2)
    assert timing.p10_us == pytest.approx(101)


def test_passes_of_one_entry_lie_apart_with_the_reference_before_each(clock) -> None:
    harness(clock).time([clock.work("a", 1000.0), clock.work("b", 2000.0)])
    order = [name for i, name in enumerate(clock.log) if i == 0 or clock.log[i - 1] != name]
    assert order == ["reference", "a", "reference", "b", "reference", "a", "reference", "b"]


def test_a_long_call_is_still_sampled_a_few_times(clock) -> None:
    assert harness(clock).time([clock.work("a", 50_000.0)])[0].count == 2 * 5


def test_every_first_pass_is_reported(clock) -> None:
    seen: list[int] = []
    harness(clock).time([clock.work("a", 100.0)] * 3, on_pass=lambda: seen.append(1))
    assert len(seen) == 6


def test_passes_that_disagree_are_repeated_until_two_agree(clock) -> None:
    times = by_pass(110.0, 104.0, 100.0, 100.5)
    timing = harness(clock).time([clock.work("a", lambda: next(times))])[0]
    assert timing.passes == 4
    assert timing.minimum_us == pytest.approx(100)
    assert timing.spread == pytest.approx(0.005)
    assert timing.is_stable


def test_an_entry_that_never_settles_is_given_up_and_marked(clock) -> None:
    times = by_pass(200.0, 180.0, 160.0, 140.0, 120.0, 100.0)
    timing = harness(clock).time([clock.work("a", lambda: next(times))])[0]
    assert (timing.passes, timing.is_stable) == (6, False)
    assert timing.spread == pytest.approx(0.2)


@pytest.mark.parametrize(("spread", "passes"), [(0.0299, 2), (0.0301, 6)])
def test_three_per_cent_is_the_limit(clock, spread: float, passes: int) -> None:
    times = by_pass(1000.0, *repeat(1000.0 * (1 + spread), 5))
    assert harness(clock).time([clock.work("a", lambda: next(times))])[0].passes == passes


def test_only_what_disagrees_is_repeated(clock) -> None:
    times = by_pass(110.0, 100.0, 100.0)
    unstable, stable = harness(clock).time([clock.work("a", lambda: next(times)), clock.work("b", 50.0)])
    assert (unstable.passes, stable.passes) == (3, 2)


def test_a_machine_that_became_slower_shows_in_the_drift(clock) -> None:
    speeds = chain(repeat(20.0, 20), repeat(24.0))
    slow = harness(clock, reference=clock.work("reference", lambda: next(speeds)))
    first, second = slow.time([clock.work("a", 100.0), clock.work("b", 100.0)])
    assert first.drift == 0.0
    assert second.drift == pytest.approx(0.2)
    assert (first.is_stable, second.is_stable) == (True, False)
    assert second.passes == 6


def test_interruptions_by_others_do_not_show(clock) -> None:
    """Half of the calls are interrupted for a slice of the scheduler; the minimum is that of the others."""
    generator = np.random.default_rng(0)
    timing = harness(clock, seconds_per_pass=1.0).time(
        [clock.work("a", lambda: 100.0 + 4000.0 * float(generator.random() < 0.5))]
    )[0]
    assert timing.minimum_us == pytest.approx(100)
    assert timing.p10_us == pytest.approx(100)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not pin threads")
def test_pinning_ends_with_the_context() -> None:
    before = os.sched_getaffinity(0)
    inside: list[set[int]] = []

    def fail() -> None:
        with pinned(1) as cores:
            inside.extend([set(cores), os.sched_getaffinity(0)])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert inside[0] == inside[1]
    assert len(inside[0]) == 1
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not pin threads")
@pytest.mark.parametrize(("threads", "match"), [(0, "at least 1 thread, got 0"), (9999, "at most .* threads .*9999")])
def test_threads_that_the_process_has_not(threads: int, match: str) -> None:
    with pytest.raises(InputError, match=match), pinned(threads):
        pass


def test_a_system_that_does_not_pin_goes_on_without(monkeypatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pinned(1) as cores:
        assert cores == ()


def test_the_reference_takes_tens_of_microseconds() -> None:
    timing = Harness(seconds_per_pass=0.005, most_passes=2).time([reference_kernel()])[0]
    assert 2 < timing.minimum_us < 2000
