"""Who does which point of a sweep: what the processes of a sweep share, kept by Optuna.

A point is a trial, or several where a process was lost. A trial that failed without an exit code is void: its process
was lost or gave it back, or it is one too many. Of the other trials of a point the first one counts. So two processes
may add trials of the same point at the same time, and still one of them runs it.
"""

import contextlib
import dataclasses
import enum
import os
import pathlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import optuna
import sqlalchemy.event
import sqlalchemy.exc
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from iterand_tf.errors import UserError, first_line
from iterand_tf.experiments.points import Point, Space

JOURNAL = "sweep.journal"
# Two processes that make the tables of a new database at the same time disturb each other.
OPENING_TRIES = 10
BUSY_SECONDS = 60
WRITING_TRIES, WRITING_PAUSE = 30, 10.0


class State(enum.Enum):
    """Of a point."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class PointState:
    """How far a point is.

    Args:
        point: with its values, once they are chosen.
        state: of it.
        worker: the process that runs it or ran it, HOST:PID.
        accuracy: validation accuracy of the finished run.
        error: what a failed run ended with.
    """

    point: Point
    state: State
    worker: str = ""
    accuracy: float | None = None
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A point that this process has to itself, until it is finished, given back or lost.

    Args:
        point: with its values.
        number: of its trial.
    """

    point: Point
    number: int


class LostClaimError(Exception):
    """Another process has taken the point up, as this one had given no sign for too long."""


class Board:
    """The points of a sweep and their states.

    Args:
        study: Optuna's, from `open_study`.
        space: the points.
        make_sampler: gives the sampler that chooses the values of the point of this index.
        patience: seconds without a sign after which a process counts as lost.
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
        self._trials: dict[int, optuna.Trial] = {}
        # By number of the trial: its last sign, and when this process saw it first.
        self._signs: dict[int, tuple[Any, float]] = {}
        self._worker = f"{socket.gethostname()}:{os.getpid()}"

    def states(self) -> list[PointState]:
        """All points, in order; adds a trial for each that has none."""
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
        """Takes a point that waits, if another process has not been faster."""
        trial = self._study.ask()
        index = self._index.get(trial.user_attrs.get("point", ""))
        if index is None or self._counting_trials()[self._space.points[index].name].number != trial.number:
            self._void(trial.number)
            return None
        # A point that is tried again is given the same seed, and no two points are.
        self._study.sampler = self._make_sampler(index)
        for flag, distribution in self._space.distributions.items():
            _choose(trial, flag, distribution)
        self._trials[trial.number] = trial
        trial.set_user_attr("worker", self._worker)
        return Claim(Point(self._space.points[index].name, dict(trial.params)), trial.number)

    def give_sign(self, claim: Claim) -> None:
        """Shows the others that this process is still there.

        Raises:
            LostClaimError: if one of them has thought otherwise.
        """
        # A storage that is busy or away for a while is no reason to stop a training.
        with contextlib.suppress(optuna.exceptions.StorageInternalError), _lost_if_finished():
            self._trials[claim.number].set_user_attr("sign", time.time())

    def finish(self, claim: Claim, accuracy: float) -> None:
        """The point's run has ended with this validation accuracy."""
        _patiently(lambda: self._study.tell(claim.number, accuracy))

    def fail(self, claim: Claim, exit_code: int, error: str) -> None:
        """The point's run has failed."""
        trial = self._trials[claim.number]
        _patiently(lambda: trial.set_user_attr("error", error))
        _patiently(lambda: trial.set_user_attr("exit_code", exit_code))
        _patiently(lambda: self._study.tell(claim.number, state=TrialState.FAIL))

    def give_back(self, claim: Claim) -> None:
        """Lets any process continue the point."""
        self._void(claim.number)

    def free_lost(self, is_free: Callable[[str], bool]) -> list[str]:
        """Frees the points of processes that have given no sign for too long, by this process's own clock.

        Args:
            is_free: says of the name of a point whether no process trains in its directory.

        Returns:
            The names of the points that were freed.
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
        """By name of a point the trial that counts."""
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
        values = retry_of.params if retry_of else point.values
        attributes = {"point": point.name} | ({"retry_of": retry_of.number} if retry_of else {})
        distributions = {flag: self._space.distributions[flag] for flag in values}
        self._study.add_trial(
            optuna.create_trial(
                state=TrialState.WAITING, params=values, distributions=distributions, user_attrs=attributes
            )
        )

    def _void(self, number):
        """Ends a trial that does not count; False if another process was faster."""
        try:
            self._study.tell(number, state=TrialState.FAIL)
        except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
            return False
        return True


def _patiently(write: Callable[[], object]) -> None:
    """Writes what must not be lost, also where the storage is busy or away for some minutes."""
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
    """Lets the sampler choose a value, unless the trial has one, as it does in a grid."""
    if isinstance(distribution, optuna.distributions.IntDistribution):
        trial.suggest_int(flag, distribution.low, distribution.high, log=distribution.log)
    elif isinstance(distribution, optuna.distributions.FloatDistribution):
        trial.suggest_float(flag, distribution.low, distribution.high, log=distribution.log)


def _state(point, trial):
    if trial is None or trial.state is TrialState.WAITING:
        return PointState(point, State.WAITING)
    point = Point(point.name, trial.params)
    worker = trial.user_attrs.get("worker", "")
    if trial.state is TrialState.RUNNING:
        return PointState(point, State.RUNNING, worker)
    if trial.state is TrialState.FAIL:
        return PointState(point, State.FAILED, worker, error=trial.user_attrs["error"])
    return PointState(point, State.DONE, worker, trial.value)


def make_sampler(name: str, seed: int, index: int) -> optuna.samplers.BaseSampler:
    """What chooses the values of a point of a search.

    Args:
        name: `"tpe"` or `"random"`; what the latter chooses depends on seed and index alone.
        seed: of the sweep.
        index: of the point.
    """
    seed = (seed * 1_000_003 + index) % 2**32
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def open_study(url: str, directory: pathlib.Path, name: str) -> optuna.Study:
    """Opens the sweep's study, or makes it.

    Args:
        url: Optuna's storage URL; empty for the journal file in the directory.
        directory: of the sweep.
        name: of the study.

    Raises:
        UserError: if the storage cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for remaining in reversed(range(OPENING_TRIES)):
        try:
            return optuna.create_study(
                study_name=name, storage=_storage(url, directory), direction="maximize", load_if_exists=True
            )
        except (ImportError, sqlalchemy.exc.ArgumentError) as error:
            raise UserError(f"--sweep_storage names no database that can be used ({first_line(error)}).") from error
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            if not remaining:
                raise UserError(f"--sweep_storage cannot be reached ({first_line(error)}); is it running?") from error
            time.sleep(0.5)
    raise AssertionError("not reached")


def _storage(url: str, directory: pathlib.Path) -> optuna.storages.BaseStorage:
    if not url:
        backend = JournalFileBackend(str(directory / JOURNAL))
        return optuna.storages.JournalStorage(backend)
    if not url.startswith("sqlite"):
        return optuna.storages.RDBStorage(url)
    # Without isolation level the driver begins no transactions of its own, which would begin at the first write. Tables
    # are made without any, see OPENING_TRIES.
    storage = optuna.storages.RDBStorage(
        url, engine_kwargs={"connect_args": {"timeout": BUSY_SECONDS, "isolation_level": None}}
    )
    sqlalchemy.event.listen(storage.engine, "begin", _begin_writing)
    return storage


def _begin_writing(connection):
    """Begins a transaction of sqlite as a writing one, of which there is one at a time.

    Optuna reads whether a trial waits and then writes that it runs. Other databases lock the row that was read; sqlite
    knows no such lock, and two processes could take the same trial.
    """
    connection.exec_driver_sql("BEGIN IMMEDIATE")
