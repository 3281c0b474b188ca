"""Workers wait for each other: all go on when the last has come, and the leader first."""

import socket
import threading

import pytest

from iterand_tf.errors import LostWorkerError, UserError
from iterand_tf.strategies.rendezvous import wait_for_workers
from tools.local_workers import _free_ports

PATIENCE = 20.0


@pytest.fixture
def addresses():
    return [f"127.0.0.1:{port}" for port in _free_ports(3)]


def greet(address, until):
    """What TensorFlow's server does: it sends its settings to whoever connects."""
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))) as server:
        server.settimeout(0.1)
        while not until():
            try:
                asking, _ = server.accept()
            except TimeoutError:
                continue
            with asking:
                asking.sendall(b"\x00\x00\x12\x04")


def test_all_go_on_when_the_last_has_come_and_the_leader_first(addresses):
    order, all_there = [], threading.Event()

    def worker(number):
        wait_for_workers(addresses, number, PATIENCE)
        order.append(number)
        if number == 0:
            greet(addresses[0], until=all_there.is_set)

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(3)]
    for thread in threads[:2]:
        thread.start()
    threads[1].join(1)
    # The third is missing.
    assert order == []
    threads[2].start()
    for thread in threads[1:]:
        thread.join(PATIENCE)
    all_there.set()
    threads[0].join(PATIENCE)
    assert order[0] == 0
    assert sorted(order) == [0, 1, 2]


@pytest.mark.parametrize("own", [0, 1])
def test_patience_ends(own, addresses, capsys):
    missing = ", ".join(addresses[1:] if own == 0 else addresses[:1])
    with pytest.raises(LostWorkerError, match="did not come in 0 s; start all workers"):
        wait_for_workers(addresses, own, patience=0.3)
    assert capsys.readouterr().out == f"waiting for {missing}\n"


def test_a_port_in_use_is_one_sentence(addresses):
    with (
        socket.create_server(("127.0.0.1", int(addresses[0].rpartition(":")[2]))),
        pytest.raises(UserError, match=r"cannot be used \(Address already in use\); give this worker another"),
    ):
        wait_for_workers(addresses, 0, PATIENCE)
