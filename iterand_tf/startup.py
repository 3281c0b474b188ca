"""How a process of the command line begins: TensorFlow is imported without its log, and Ctrl-C ends it.

`python -m iterand_tf` and the script iterand-tf import this package, and TensorFlow with it, before a line of theirs
runs. So the package itself begins here. In any other program nothing happens: its author decides about TensorFlow.
"""

import os
import pathlib
import signal
import sys

# Of a checkout; the wheel has none.
MAIN = pathlib.Path(__file__).resolve().parent.parent / "main.py"


def started_by_main() -> bool:
    """Whether this process runs the checkout's main.py."""
    return pathlib.Path(sys.argv[0]).resolve() == MAIN


def _is_command_line():
    # While Python imports the package of `python -m iterand_tf`, argv[0] is "-m".
    by_module = sys.argv[0] == "-m" and "iterand_tf" in sys.orig_argv
    return by_module or pathlib.Path(sys.argv[0]).stem == "iterand-tf" or started_by_main()


def _import_keras_quietly():
    """TensorFlow, which Keras imports, writes half a dozen lines to file descriptor 2, whatever the log level."""
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import keras  # noqa: F401
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


if _is_command_line():
    # Ctrl-C while modules are imported ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # TensorFlow reads both when it is imported. Its errors come as exceptions, so its log says nothing more.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # oneDNN's kernels, which TensorFlow leaves off on x86 processors without AVX512-VNNI, train nearly twice as fast.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    _import_keras_quietly()
