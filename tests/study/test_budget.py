from hwdse.study.budget import Budget, Meter


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def test_evaluations_are_spent_one_by_one():
    meter = Meter(Budget(evaluations=2), Clock())
    for count in range(2):
        assert not meter.is_spent
        assert meter.evaluations == count
        meter.add(1e6, is_earlier=False)
    assert meter.is_spent


def test_another_evaluation_must_fit_into_the_seconds():
    clock = Clock()
    meter = Meter(Budget(evaluations=100, seconds=10.0), clock)
    clock.now += 4.0
    meter.add(3.0, is_earlier=False)
    clock.now += 3.0
    assert not meter.is_spent  # 7 s gone, the longest took 3
    clock.now += 0.001
    assert meter.is_spent


def test_earlier_sessions_count_for_what_they_measured():
    clock = Clock()
    meter = Meter(Budget(seconds=10.0), clock)
    meter.add(2.0, is_earlier=True)
    assert meter.seconds == 2.0
    clock.now += 1.5
    meter.add(1.5, is_earlier=False)
    assert meter.seconds == 3.5


def test_a_stopped_clock_stands_still():
    clock = Clock()
    meter = Meter(Budget(seconds=10.0), clock)
    clock.now += 3.0
    meter.stop()
    clock.now += 100.0
    assert meter.seconds == 3.0
