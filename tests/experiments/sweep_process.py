"""A process of a sweep whose points are fake runs: python sweep_process.py [--flag=value ...]."""

import pathlib
import sys

import main

if __name__ == "__main__":
    main.__file__ = str(pathlib.Path(__file__).parent / "fake_run.py")
    sys.exit(main.main(["main.py", "--mode=sweep", *sys.argv[1:]]))
