"""Starts several workers of a command on this machine, to try --strategy=multi_worker.

python tools/local_workers.py 2 main.py --flagfile=flags/quickstart.flags --model_dir=runs/two_workers

Each worker gets a TF_CONFIG with addresses of 127.0.0.1. The chief's output is shown; of the others, what they write to
standard error. The exit code is the first that is not 0, of a worker ended by a signal 128 and the signal's number.
When this is stopped, the workers are too.
"""

import json
import os
import signal
import socket
import subprocess
import sys


def start(count: int, command: list[str], **options) -> list[subprocess.Popen]:
    """Starts the workers.

    Args:
        count: how many.
        command: a Python script and its arguments.
        **options: of `subprocess.Popen`.
    """
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(count)]
    # Each is in a session of its own, so that Ctrl-C reaches it through `main` alone, once.
    workers = []
    for index in range(count):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {"TF_CONFIG": json.dumps(task)}
        quiet = {} if index == 0 else {"stdout": subprocess.DEVNULL}
        workers.append(
            subprocess.Popen([sys.executable, *command], env=environment, **(quiet | options), start_new_session=True)
        )
    return workers


def _unblock_signals():
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def main(arguments: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    if len(arguments) < 2 or not arguments[0].isdecimal() or int(arguments[0]) < 1:
        print("error: write python tools/local_workers.py COUNT SCRIPT [ARGUMENT ...]", file=sys.stderr)
        return 1
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    # Signals wait until there are workers to pass them on to.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    workers = start(int(arguments[0]), arguments[1:], preexec_fn=_unblock_signals)

    def pass_on(number, frame):
        for worker in workers:
            worker.send_signal(number)

    for number in signals:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    codes = [worker.wait() for worker in workers]
    failed = next((code for code in codes if code), 0)
    # A shell, too, says 128 and the number of the signal.
    return failed if failed >= 0 else 128 - failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
