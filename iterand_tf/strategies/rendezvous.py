"""Workers wait for each other before TensorFlow makes a cluster of them, which would wait silently and deaf to signals.

Until all are there, each worker listens on its own port, and the leader, the first of them, says that it waits. Then
the leader goes on to TensorFlow, whose server greets the others in words of its own, and they go on as well.
"""

import contextlib
import os
import socket
import time

from iterand_tf.errors import LostWorkerError, UserError

_WAITING = b"iterand_tf waits"
# Seconds between two rounds of asking, and to wait for an answer.
_PAUSE = 0.1
_ANSWER = 1.0


def wait_for_workers(addresses: list[str], own: int, patience: float = 3600.0) -> None:
    """Returns when all workers have been started, or raises an error after `patience` seconds.

    `addresses` are host:port of each, the leader's first.
    """
    missing = dict.fromkeys(addresses[1:] if own == 0 else addresses[:1])
    deadline = time.monotonic() + patience
    told = False
    with _listen(addresses[own]) as server:
        while True:
            _answer(server)
            for address in list(missing):
                if _is_there(address, leader=own != 0):
                    del missing[address]
            if not missing:
                return
            if not told:
                told = True
                print(f"waiting for {', '.join(missing)}", flush=True)
            if time.monotonic() > deadline:
                raise LostWorkerError(f"{', '.join(missing)} did not come in {patience:.0f} s; start all workers.")
            time.sleep(_PAUSE)


def _listen(address):
    _, _, port = address.rpartition(":")
    both = socket.has_dualstack_ipv6()
    try:
        server = socket.create_server(
            ("", int(port)), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both
        )
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise UserError(f"the port of {address} cannot be used ({reason}); give this worker another.") from error
    server.setblocking(False)
    return server


def _answer(server):
    # Nobody may have asked, or whoever asked may be gone again.
    with contextlib.suppress(OSError):
        while True:
            asking, _ = server.accept()
            with asking:
                asking.sendall(_WAITING)


def _is_there(address, leader):
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER) as asked:
            if not leader:
                return True
            greeting = asked.recv(len(_WAITING))
            return bool(greeting) and not _WAITING.startswith(greeting)
    except OSError:
        return False
