"""Processes from start to end: main.py on the digits without training, and imports; and one export.

`main.py` reads the dataset, builds the network, evaluates it and writes the run's directory. Differences of two imports
are medians of the rounds' differences. "Export" is `export_saved_model` of a Conv2 for the digits, with the process
that loads and tries the result, but without the imports of the process that exports.
"""

import statistics
import subprocess
import sys
import tempfile

import environment
from sides import Case, Ratio, at_most, take_turns

import export
from iterand_tf import Supermask, models

MOST_IMPORT_SECONDS = 0.3


def run(*arguments):
    subprocess.run([sys.executable, *arguments], cwd=environment.ROOT, check=True, capture_output=True)


def cases(options):
    rounds = 3 if options.quick else 9
    network = models.build("conv2", (8, 8, 1), 10, models.SubnetFactory(Supermask(0.5)))
    with tempfile.TemporaryDirectory() as directory:

        def quickstart():
            flags = ["--flagfile=flags/quickstart.flags", "--epochs=0", "--export_dir="]
            run("main.py", *flags, f"--model_dir={tempfile.mkdtemp(dir=directory)}/run")

        turns = {
            "main.py": quickstart,
            "import tensorflow, keras": lambda: run("-c", "import tensorflow, keras"),
            "import iterand_tf": lambda: run("-c", "import keras, iterand_tf"),
            "import keras": lambda: run("-c", "import keras"),
            "export": lambda: export.export_saved_model(network, directory + "/export"),
        }
        seconds = take_turns(turns, rounds)
    pairs = zip(seconds["import iterand_tf"], seconds["import keras"], strict=True)
    more = statistics.median(ours - theirs for ours, theirs in pairs)
    values = {"import iterand_tf over import keras, s": more, "target, s": at_most(more, MOST_IMPORT_SECONDS)}
    ratios = (
        Ratio("main.py", "import tensorflow, keras", at_most=1.6),
        Ratio("export", "import tensorflow, keras", at_most=1.2),
    )
    yield Case("quickstart, --epochs=0 --export_dir=", seconds, ratios, values)
