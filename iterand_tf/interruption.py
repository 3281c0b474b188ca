"""Signals that ask a run to stop: it saves its state between two steps and ends."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def take_signals_back() -> None:
    """Puts Python's handlers in the place of those of a library; outside the main thread nothing changes."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.getsignal(number))


class InterruptedRunError(Exception):
    """A signal has ended the run. Exit code: 128 and the signal's number."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class StopRequest:
    """Remembers the first signal of the run; the second one ends the process at once."""

    def __init__(self):
        self.number: int | None = None

    def handle(self, number, frame):
        self.number = number
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        message = f"{signal.Signals(number).name}: saving after this step; once more ends at once\n"
        # The process may be in the midst of a print.
        os.write(2, message.encode())


@contextlib.contextmanager
def deferred_signals() -> Iterator[StopRequest]:
    """Within, SIGTERM and SIGINT set the request; outside the main thread, where no signal arrives, nothing changes."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.handle) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
