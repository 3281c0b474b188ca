"""One process of a sweep: takes points, runs each in a process of its own, and ends when all points are done."""

import collections
import contextlib
import ctypes
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from optuna.exceptions import StorageInternalError as StorageError

from iterand_tf.errors import SweepError
from iterand_tf.experiments.config import SweepConfig
from iterand_tf.experiments.search_space import Configure, point_flags
from iterand_tf.experiments.shared_points import Claim, LostClaimError, PointState, SharedPoints, State
from iterand_tf.files import locked
from iterand_tf.interruption import InterruptedRunError, StopRequest
from iterand_tf.text_table import text_table
from iterand_tf.training.epoch_figures import read_metrics
from iterand_tf.training.flags_file import flags_text
from iterand_tf.training.model_dir import ModelDir

POLL_SECONDS = 0.2
IDLE_SECONDS = 1.0
# Signs that a process gives in the time after which a silent one counts as lost.
SIGNS_IN_PATIENCE = 4


@dataclasses.dataclass
class Worker:
    """One process of a sweep; `request` is set when a signal asks it to stop, `shown` is what it has printed last."""

    options: SweepConfig
    configure: Configure
    command: Sequence[str]
    directory: pathlib.Path
    points: SharedPoints
    request: StopRequest
    shown: str = ""

    def run(self) -> None:
        """Runs points until all are done. A signal gives the point that runs back."""
        while True:
            states = self._show()
            waiting = [state for state in states if state.state is State.WAITING]
            running = [state for state in states if state.state is State.RUNNING]
            if not waiting and not running:
                break
            self._stop_if_asked()
            claim = self.points.claim() if waiting else None
            if claim is not None:
                self._run_point(claim)
            elif not waiting:
                for name in self.points.free_lost(self._is_free):
                    print(f"{name}: its process has given no sign for {self.options.sweep_patience:g} s", flush=True)
                time.sleep(IDLE_SECONDS)
        if failed := [state for state in states if state.state is State.FAILED]:
            named = "; ".join(f"{state.point.name} ({state.error})" for state in failed)
            raise SweepError(
                f"{len(failed)} of {len(states)} points failed, the others are done: {named}; give --resume to try "
                "them again."
            )

    def _run_point(self, claim: Claim) -> None:
        model_dir = ModelDir(self.directory / claim.point.name)
        log = self.directory / f"{claim.point.name}.log"
        config = self.configure(point_flags(claim.point.values))
        flags = flags_text(config).splitlines()
        if config.export.export_dir:
            flags.append(f"--export_dir={pathlib.Path(config.export.export_dir, claim.point.name)}")
        arguments = [*self.command, *flags, f"--model_dir={model_dir.path}", "--resume"]
        with log.open("ab") as output:
            begin = output.tell()
            process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **_dies_with_this_process()
            )
        try:
            self._wait(process, claim)
            if process.returncode == 0:
                self.points.finish(claim, model_dir.read_result()["validation_accuracy"])
            else:
                self.points.fail(claim, process.returncode, _error(process.returncode, log, begin))
        except LostClaimError:
            print(f"{claim.point.name}: another process has taken it up", flush=True)
        finally:
            _stop(process)

    def _wait(self, process: subprocess.Popen, claim: Claim) -> None:
        """Waits for the end of the point's run, and gives signs of life."""
        next_sign = 0.0
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
                if self.request.number is None:
                    return
            if self.request.number is not None:
                _stop(process)
                self.points.give_back(claim)
                self._stop_if_asked()
            if time.monotonic() >= next_sign:
                self.points.give_sign(claim)
                with contextlib.suppress(StorageError):
                    self._show()
                next_sign = time.monotonic() + self.options.sweep_patience / SIGNS_IN_PATIENCE

    def _stop_if_asked(self) -> None:
        if self.request.number is not None:
            raise InterruptedRunError(self.request.number)

    def _is_free(self, name: str) -> bool:
        """Whether no process of this machine trains in a point's directory."""
        try:
            with locked(self.directory / name):
                return True
        except BlockingIOError:
            return False
        except FileNotFoundError:
            return True

    def _show(self) -> list[PointState]:
        """Prints the table of all points if a state has changed. A terminal gets each one, in the place of the last."""
        states = self.points.states()
        counts = collections.Counter(state.state for state in states)
        head = ", ".join(f"{counts[state]} {state.name.lower()}" for state in State)
        rows: list[tuple[str, ...]] = [("point", "state", "process", "epoch", "validation accuracy")]
        rows += [self._row(state) for state in states]
        text = f"\n{self.directory}: {head}\n{text_table(rows)}"
        if sys.stdout.isatty():
            up = f"\x1b[{self.shown.count(chr(10)) + 1}F\x1b[J" if self.shown else ""
            print(f"{up}{text}", flush=True)
            self.shown = text
        elif (key := str([(state.point.name, state.state) for state in states])) != self.shown:
            print(text, flush=True)
            self.shown = key
        return states

    def _row(self, state: PointState) -> tuple[str, ...]:
        values = ",".join(f"{flag}={value}" for flag, value in state.point.values.items())
        name = state.point.name if values in ("", state.point.name) else f"{state.point.name} {values}"
        try:
            rows = read_metrics(ModelDir(self.directory / state.point.name).metrics)
        except (OSError, ValueError):
            rows = []
        epoch = rows[-1]["epoch"] if rows else ""
        accuracy = state.accuracy if state.accuracy is not None else rows and rows[-1].get("val_accuracy")
        return name, state.state.name.lower(), state.worker, epoch, f"{float(accuracy):.4f}" if accuracy else ""


def _stop(process):
    if process.poll() is None:
        process.terminate()
        process.wait()


def _error(exit_code, log, begin):
    """How a failed run ended: its exit code, and its error or the last line of its output."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    sentences = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    how = f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
    said = (sentences or lines or [""])[-1].rstrip(".")
    return re.sub(r"\s+", " ", f"{how}: {said}" if said else how)


def _dies_with_this_process() -> dict[str, Any]:
    """Arguments of Popen: the terminal's signals do not reach the child, and it stops when this process is killed.

    The second part is for Linux only. Elsewhere the child trains to its end, and then another process takes the point.
    """
    if not sys.platform.startswith("linux"):
        return {"start_new_session": True}
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask_for_signal():
        prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)

    return {"start_new_session": True, "preexec_fn": ask_for_signal}
