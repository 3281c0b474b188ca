"""Storages of sweeps: a journal file, sqlite, and a PostgreSQL server of the tests' own."""

import os
import pathlib
import shutil
import socket
import subprocess
import tempfile

import pytest


@pytest.fixture(scope="session")
def postgresql():
    """Optuna's URL of a fresh PostgreSQL server that ends with the tests."""
    versions = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
    if not versions:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    # The server refuses to be run by root.
    other_user = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
    directory = tempfile.mkdtemp(prefix="postgresql_")
    if other_user:
        shutil.chown(directory, **other_user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(program, *arguments):
        command = [str(versions[-1] / program), f"--pgdata={directory}/data", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=directory, **other_user)

    run("initdb", "--username=sweep", "--auth=trust", "--no-sync")
    run("pg_ctl", "start", "--wait", f"--log={directory}/log", f"--options=-p {port} -k {directory} -c fsync=off")
    try:
        yield f"postgresql://sweep@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "stop", "--mode=immediate")
        shutil.rmtree(directory)


@pytest.fixture(params=["journal", "sqlite", "postgresql"])
def storage_url(request, tmp_path):
    """Where the state of a sweep is kept, as --sweep_storage names it."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql")
    return f"sqlite:///{tmp_path}/sweep.db" if request.param == "sqlite" else ""


@pytest.fixture
def storage_flags(storage_url):
    """The flags of such a sweep."""
    return [f"--sweep_storage={storage_url}"] if storage_url else []
