"""Who does which point, where processes race, die between two steps, or come back: all on one storage."""

import concurrent.futures
import threading

import optuna
import pytest

from iterand_tf.experiments import shared_points
from iterand_tf.experiments.search_space import Point, Space, make_sampler
from iterand_tf.experiments.shared_points import LostClaimError, SharedPoints, State
from iterand_tf.experiments.sweep import open_study

PATIENCE = 60


class Clock:
    """Stands for the time module of a process."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    time = monotonic


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(shared_points, "time", clock)
    return clock


@pytest.fixture
def make_points():
    """A function that gives the points of the same sweep, as several processes have them."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.InMemoryStorage()
    points = tuple(Point(f"seed={seed}", {"seed": seed}) for seed in (1, 2))
    space = Space(points, {"seed": optuna.distributions.CategoricalDistribution([1, 2])})

    def make():
        study = optuna.create_study(storage=storage, study_name="one", direction="maximize", load_if_exists=True)
        return SharedPoints(study, space, lambda index: make_sampler("random", 0, index), PATIENCE)

    return make


def states(points):
    return [each.state for each in points.states()]


def claimed(points):
    """The names of the points that a process can still take."""
    claims = [points.claim() for state in states(points) if state is State.WAITING]
    return [claim.point.name for claim in claims if claim]


def add_once_more(points):
    """As a process does that has seen the points without trials too."""
    for point in points._space.points:
        points._add(point)


def test_a_point_that_was_added_twice_is_run_once(make_points):
    one, two = make_points(), make_points()
    assert states(one) == [State.WAITING, State.WAITING]
    add_once_more(two)
    assert claimed(one) + claimed(two) == ["seed=1", "seed=2"]
    # What is one too many is given up by whoever claims it.
    assert [two.claim() for _ in range(3)] == [None] * 3
    assert states(two) == [State.RUNNING, State.RUNNING]


def test_processes_that_claim_at_the_same_time_get_different_points(storage_url, tmp_path):
    points = tuple(Point(f"seed={seed}", {}) for seed in range(30))
    studies = [open_study(storage_url, tmp_path, tmp_path.name) for _ in range(4)]
    names = []
    barrier = threading.Barrier(len(studies))

    def claim_all(study):
        shared = SharedPoints(study, Space(points, {}), lambda index: make_sampler("random", 0, index), PATIENCE)
        barrier.wait()
        while any(each.state is State.WAITING for each in shared.states()):
            claim = shared.claim()
            names.extend([claim.point.name] if claim else [])

    with concurrent.futures.ThreadPoolExecutor(len(studies)) as threads:
        list(threads.map(claim_all, studies))
    assert sorted(names) == sorted(point.name for point in points)


def test_the_second_trial_of_a_point_that_failed_does_not_count(make_points):
    one, two = make_points(), make_points()
    states(one)
    add_once_more(two)
    claim = one.claim()
    one.fail(claim, 5, "exit code 5")
    assert states(two) == [State.FAILED, State.WAITING]
    assert claimed(two) == ["seed=2"]


def test_a_point_is_freed_when_its_process_has_given_no_sign(make_points, clock):
    one, two = make_points(), make_points()
    states(one)
    claim = one.claim()
    one.give_sign(claim)
    assert two.free_lost(lambda name: True) == []
    clock.now = 50
    one.give_sign(claim)
    assert two.free_lost(lambda name: True) == []
    clock.now = 100
    assert two.free_lost(lambda name: True) == []
    clock.now = 111
    # A process of this machine is still in the directory.
    assert two.free_lost(lambda name: False) == []
    assert two.free_lost(lambda name: True) == ["seed=1"]
    assert states(two) == [State.WAITING, State.WAITING]
    for use in (lambda: one.give_sign(claim), lambda: one.finish(claim, 0.5), lambda: one.fail(claim, 1, "")):
        with pytest.raises(LostClaimError):
            use()
    assert sorted(claimed(two)) == ["seed=1", "seed=2"]


def test_a_process_that_is_new_waits_for_its_own_patience(make_points, clock):
    one = make_points()
    states(one)
    one.give_sign(one.claim())
    clock.now = 10_000
    two = make_points()
    assert two.free_lost(lambda name: True) == []
    clock.now += PATIENCE + 1
    assert two.free_lost(lambda name: True) == ["seed=1"]


def test_a_point_that_was_given_back_is_taken_at_once(make_points):
    one, two = make_points(), make_points()
    states(one)
    one.give_back(one.claim())
    assert sorted(claimed(two)) == ["seed=1", "seed=2"]


def test_two_processes_that_retry_a_point_retry_it_once(make_points):
    one, two = make_points(), make_points()
    states(one)
    for _ in range(2):
        one.fail(one.claim(), 5, "exit code 5")
    one.retry_failed()
    two.retry_failed()
    assert states(one) == [State.WAITING, State.WAITING]
    assert sorted(claimed(one) + claimed(two)) == ["seed=1", "seed=2"]


def test_a_random_search_depends_on_seed_and_point_alone():
    def draw(seed, index):
        study = optuna.create_study(sampler=make_sampler("random", seed, index))
        return study.ask().suggest_float("rate", 0, 1)

    largest = 2**31 - 1
    assert draw(largest, 3) == draw(largest, 3)
    assert len({draw(seed, index) for seed in (0, 1, largest) for index in range(3)}) == 9
