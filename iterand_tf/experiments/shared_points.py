"""Which process runs which point of a sweep: the state that all of its processes share, kept by Optuna.

A point is one trial, or several if a process was lost. A trial that failed without an exit code is void: its process
was lost or gave it back, or there was one trial too many. Of the other trials of a point the first one counts. So two
processes may add a trial of the same point at the same time, and still only one of them runs it.
"""

import contextlib
import dataclasses
import enum
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from iterand_tf.experiments.search_space import Point, Space

WRITING_TRIES, WRITING_PAUSE = 30, 10.0


class State(enum.Enum):
    """The state of a point, as that of its trial."""

    WAITING = TrialState.WAITING
    RUNNING = TrialState.RUNNING
    DONE = TrialState.COMPLETE
    FAILED = TrialState.FAIL


@dataclasses.dataclass(frozen=True)
class PointState:
    """How far a point is: with its values once they are chosen, and HOST:PID of the process that runs it or ran it."""

    point: Point
    state: State
    worker: str = ""
    accuracy: float | None = None
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A point that this process has to itself, until it is finished, given back or lost."""

    point: Point
    trial: optuna.Trial


class LostClaimError(Exception):
    """Another process has taken the point, because this one had given no sign for too long."""


class SharedPoints:
    """The points of a sweep and their states.

    A process without a sign for `patience` seconds counts as lost. `make_sampler` makes the sampler that chooses the
    values of the point with an index.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        make_sampler: Callable[[int], optuna.samplers.BaseSampler],
        patience: float,
    ):
        self._study, self._space, self._make_sampler, self._patience = study, space, make_sampler, patience
        self._index = {point.name: index for index, point in enumerate(space.points)}
        # By number of the trial: its last sign, and when this process saw it first.
        self._signs: dict[int, tuple[Any, float]] = {}
        self._worker = f"{socket.gethostname()}:{os.getpid()}"

    def states(self) -> list[PointState]:
        """All points, in order. Adds a trial for each point that has none."""
        known = self._counting_trials()
        for point in self._space.points:
            if point.name not in known:
                self._add(point)
        return [_state(point, known.get(point.name)) for point in self._space.points]

    def retry_failed(self) -> None:
        """Gives each point that has failed one more trial."""
        for point in self._space.points:
            trial = self._counting_trials().get(point.name)
            if trial is not None and trial.state is TrialState.FAIL:
                self._add(point, trial)

    def claim(self) -> Claim | None:
        """Takes a point that waits, unless another process was faster."""
        trial = self._study.ask()
        name = trial.user_attrs.get("point", "")
        if name not in self._index or self._counting_trials()[name].number != trial.number:
            self._void(trial.number)
            return None
        # A point that is tried again has the same seed. No two points have the same seed.
        self._study.sampler = self._make_sampler(self._index[name])
        for flag, distribution in self._space.distributions.items():
            _choose(trial, flag, distribution)
        trial.set_user_attr("worker", self._worker)
        return Claim(Point(name, dict(trial.params)), trial)

    def give_sign(self, claim: Claim) -> None:
        """Shows the others that this process is still there; LostClaimError if one of them has thought otherwise."""
        # A storage that is busy or away for a while is no reason to stop a training.
        with contextlib.suppress(optuna.exceptions.StorageInternalError), _lost_if_finished():
            claim.trial.set_user_attr("sign", time.time())

    def finish(self, claim: Claim, accuracy: float) -> None:
        """The point's run has ended with this validation accuracy."""
        _patiently(lambda: self._study.tell(claim.trial.number, accuracy))

    def fail(self, claim: Claim, exit_code: int, error: str) -> None:
        """The point's run has failed."""
        _patiently(lambda: claim.trial.set_user_attr("error", error))
        _patiently(lambda: claim.trial.set_user_attr("exit_code", exit_code))
        _patiently(lambda: self._study.tell(claim.trial.number, state=TrialState.FAIL))

    def give_back(self, claim: Claim) -> None:
        """Lets any process continue the point."""
        self._void(claim.trial.number)

    def free_lost(self, is_free: Callable[[str], bool]) -> list[str]:
        """Frees the points of processes that have given no sign for too long, by this process's own clock.

        `is_free` says for the name of a point whether no process trains in its directory.
        """
        freed = []
        for name, trial in self._counting_trials().items():
            if trial.state is not TrialState.RUNNING:
                continue
            sign, now = trial.user_attrs.get("sign"), time.monotonic()
            before, since = self._signs.get(trial.number, (None, now))
            self._signs[trial.number] = (sign, now if sign != before else since)
            if sign == before and now - since > self._patience and is_free(name) and self._void(trial.number):
                freed.append(name)
        return freed

    def _counting_trials(self) -> dict[str, FrozenTrial]:
        """The trial that counts, by name of the point."""
        trials = self._study.get_trials(deepcopy=False)
        retried = {trial.user_attrs.get("retry_of") for trial in trials}
        counting: dict[str, FrozenTrial] = {}
        for trial in sorted(trials, key=lambda trial: trial.number):
            failed = trial.state is TrialState.FAIL
            if failed and ("exit_code" not in trial.user_attrs or trial.number in retried):
                continue
            if "point" in trial.user_attrs:
                counting.setdefault(trial.user_attrs["point"], trial)
        return counting

    def _add(self, point, retry_of=None):
        attributes = {"point": point.name} | ({"retry_of": retry_of.number} if retry_of else {})
        self._study.enqueue_trial(retry_of.params if retry_of else point.values, user_attrs=attributes)

    def _void(self, number):
        """Ends a trial that does not count. Returns False if another process was faster."""
        try:
            self._study.tell(number, state=TrialState.FAIL)
        except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
            return False
        return True


def _patiently(write: Callable[[], object]) -> None:
    """Writes what must not be lost, also if the storage is busy or away for some minutes."""
    for remaining in reversed(range(WRITING_TRIES)):
        try:
            with _lost_if_finished():
                write()
            return
        except optuna.exceptions.StorageInternalError:
            if not remaining:
                raise
            time.sleep(WRITING_PAUSE)


@contextlib.contextmanager
def _lost_if_finished() -> Iterator[None]:
    try:
        yield
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError) as error:
        raise LostClaimError from error


def _choose(trial, flag, distribution):
    """Takes the value that the point was added with, as in a grid, or lets the sampler choose one."""
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(flag, distribution.choices)
    else:
        suggest = trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
        suggest(flag, distribution.low, distribution.high, log=distribution.log)


def _state(point, trial):
    if trial is None or trial.state is TrialState.WAITING:
        return PointState(point, State.WAITING)
    worker, error = (trial.user_attrs.get(name, "") for name in ("worker", "error"))
    return PointState(Point(point.name, trial.params), State(trial.state), worker, trial.value, error)
