"""A process of a sweep: takes points, runs each in a process of its own, and ends when all points are done."""

import contextlib
import ctypes
import dataclasses
import functools
import json
import os
import pathlib
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from optuna.exceptions import StorageInternalError as StorageError

from iterand_tf.errors import ModelDirError, SweepError, UserError, first_line
from iterand_tf.experiments.board import (
    JOURNAL,
    Board,
    Claim,
    LostClaimError,
    PointState,
    State,
    make_sampler,
    open_study,
)
from iterand_tf.experiments.config import SweepConfig
from iterand_tf.experiments.points import Configure, make_space, point_flags
from iterand_tf.files import locked, write_atomically
from iterand_tf.interruption import InterruptedRunError, StopRequest, deferred_signals
from iterand_tf.text_table import text_table
from iterand_tf.training.callbacks import read_metrics
from iterand_tf.training.config import Config
from iterand_tf.training.flags_file import changed_flags, flags_text
from iterand_tf.training.model_dir import ModelDir

POLL_SECONDS = 0.2
IDLE_SECONDS = 1.0
# So many signs are given in the time after which a silent process counts as lost.
SIGNS_IN_PATIENCE = 4


def sweep(options: SweepConfig, configure: Configure, command: Sequence[str]) -> None:
    """Runs the points of a sweep together with all other processes that do the same, until all are done.

    Each point is a run in MODEL_DIR/POINT, and its output is in MODEL_DIR/POINT.log.

    Args:
        options: of the sweep.
        configure: gives the configuration of the command line with more flags.
        command: that starts main.py.

    Raises:
        UserError: if the sweep cannot begin.
        SweepError: at the end, if points have failed.
        InterruptedRunError: if a signal came; the point that ran is given back with its state saved.
    """
    config = configure([])
    space = make_space(options, configure)
    if options.sweep_dry_run:
        print(_plan(space, options))
        return
    if not config.run.model_dir:
        raise ModelDirError("--mode=sweep needs --model_dir, the directory of the sweep.")
    directory = ModelDir(pathlib.Path(config.run.model_dir).expanduser())
    name = _join(directory, options, config)
    try:
        study = open_study(options.sweep_storage, directory.path, name)
        board = Board(
            study,
            space,
            lambda index: make_sampler(options.sweep_sampler, config.training.seed, index),
            options.sweep_patience,
        )
        if config.run.resume:
            board.retry_failed()
        with deferred_signals() as request, directory.being_written():
            _Worker(options, configure, command, directory.path, board, request).run()
    except StorageError as error:
        raise UserError(f"the sweep's storage failed ({first_line(error)}); repeat the command to continue.") from error
    except json.JSONDecodeError as error:
        # A process was killed, or the disk was full, in the midst of a line.
        raise ModelDirError(
            f"{directory.path / JOURNAL} is damaged; remove it and repeat the command, which trains no finished point "
            "again."
        ) from error


def _plan(space, options):
    rows = [("point", "flags")]
    rows += [(point.name, " ".join(point_flags(point.values) or options.search)) for point in space.points]
    return f"{text_table(rows)}\n{len(space.points)} points"


def _join(directory: ModelDir, options: SweepConfig, config: Config) -> str:
    """Enters the sweep in the directory, or begins one there; returns the name of its study.

    Raises:
        ModelDirError: if the directory holds something else, or a sweep of other flags.
    """
    file = directory.path / "sweep.json"
    with directory.being_written():
        directory.path.mkdir(parents=True, exist_ok=True)
        if directory.flags_file.exists():
            raise ModelDirError(f"--model_dir={directory.path} holds a run; give another directory for the sweep.")
        asked = {"grid": list(options.grid), "search": list(options.search)}
        mine = {"study": f"{directory.path.resolve().name}-{secrets.token_hex(4)}", **asked}
        _create(file, json.dumps(mine | {"flags": flags_text(config).splitlines()}, indent=2) + "\n")
    with directory.being_read(file):
        found = json.loads(file.read_text(encoding="utf-8"))
        changes = changed_flags("\n".join(found["flags"]), config)
        changes = changes or " ".join(
            f"--{name}={' '.join(asked[name]) or 'nothing'} instead of {' '.join(found[name]) or 'nothing'}"
            for name in asked
            if asked[name] != found[name]
        )
        study = str(found["study"])
    if changes:
        raise ModelDirError(f"--model_dir={directory.path} holds a sweep of other flags ({changes}); give those.")
    return study


def _create(file, text):
    """Writes a file unless it is there; of several processes one writes, and all see a whole file."""
    mine = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    write_atomically(mine, text)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(mine, file)
    finally:
        mine.unlink()


@dataclasses.dataclass
class _Worker:
    """One process of a sweep."""

    options: SweepConfig
    configure: Configure
    command: Sequence[str]
    directory: pathlib.Path
    board: Board
    request: StopRequest
    shown: str = ""

    def run(self) -> None:
        while True:
            states = self._show()
            waiting = [state for state in states if state.state is State.WAITING]
            running = [state for state in states if state.state is State.RUNNING]
            if not waiting and not running:
                break
            self._stop_if_asked()
            claim = self.board.claim() if waiting else None
            if claim is not None:
                self._run_point(claim)
            elif not waiting:
                for name in self.board.free_lost(self._is_free):
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
                self.board.finish(claim, model_dir.read_result()["validation_accuracy"])
            else:
                self.board.fail(claim, process.returncode, _error(process.returncode, log, begin))
        except LostClaimError:
            print(f"{claim.point.name}: another process has taken it up", flush=True)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()

    def _wait(self, process: subprocess.Popen, claim: Claim) -> None:
        """Waits for the end of the point's run, and gives signs of life."""
        next_sign = 0.0
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
                if self.request.number is None:
                    return
            if self.request.number is not None:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
                self.board.give_back(claim)
                self._stop_if_asked()
            if time.monotonic() >= next_sign:
                self.board.give_sign(claim)
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
        """Prints the table of all points where one has changed its state; in a terminal at each call, in its place."""
        states = self.board.states()
        counts = [sum(each.state is state for each in states) for state in State]
        head = ", ".join(f"{count} {state.value}" for count, state in zip(counts, State, strict=True))
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
        return name, state.state.value, state.worker, epoch, f"{float(accuracy):.4f}" if accuracy else ""


def _error(exit_code, log, begin):
    """What a failed run has said: its exit code and its sentence, or the last line."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    sentences = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    how = f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
    said = (sentences or lines or [""])[-1].rstrip(".")
    return re.sub(r"\s+", " ", f"{how}: {said}" if said else how)


def _dies_with_this_process() -> dict[str, Any]:
    """Arguments of Popen: the child is out of reach of the terminal's signals, and is asked to stop if we are killed.

    Without the latter, as on systems other than Linux, a point whose process was killed is trained to its end, and is
    taken up then.
    """
    if not sys.platform.startswith("linux"):
        return {"start_new_session": True}
    prctl = ctypes.CDLL(None).prctl
    return {"start_new_session": True, "preexec_fn": functools.partial(_ask_for_signal, prctl, os.getpid())}


def _ask_for_signal(prctl, parent):
    prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
