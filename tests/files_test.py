"""Locks of directories, on this system and as on Windows."""

import subprocess
import sys

import pytest

from iterand_tf import files

# The module alone, as it would be imported on Windows; a stand-in for msvcrt remembers which files are locked.
ON_WINDOWS = """
import importlib.util, os, pathlib, sys, types
sys.platform = "win32"
sys.modules["fcntl"] = None
held = set()

def locking(descriptor, mode, count):
    inode = os.fstat(descriptor).st_ino
    if inode in held:
        raise OSError(36, "Resource deadlock avoided")
    held.add(inode)

sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
spec = importlib.util.spec_from_file_location("files", sys.argv[1])
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
directory = pathlib.Path(sys.argv[2])
with files.locked(directory):
    try:
        with files.locked(directory):
            print("entered twice")
    except BlockingIOError:
        print("kept out")
print(sorted(path.name for path in directory.iterdir()))
"""


def test_a_locked_directory_keeps_others_out_and_leaves_no_file(tmp_path):
    with files.locked(tmp_path):
        with pytest.raises(BlockingIOError), files.locked(tmp_path):
            pass
        assert not list(tmp_path.iterdir())
    with files.locked(tmp_path):
        pass


def test_the_same_where_there_is_no_fcntl(tmp_path):
    command = [sys.executable, "-c", ON_WINDOWS, files.__file__, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["kept out", "[]"]
