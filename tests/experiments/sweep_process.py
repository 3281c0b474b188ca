"""A process of a sweep whose points are fake runs: python sweep_process.py [--flag=value ...]."""

import pathlib
import sys

from iterand_tf import cli

if __name__ == "__main__":
    fake_run = str(pathlib.Path(__file__).parent / "fake_run.py")
    cli.command_of_a_point = lambda: [sys.executable, fake_run]
    sys.exit(cli.main(["main.py", "--mode=sweep", *sys.argv[1:]]))
