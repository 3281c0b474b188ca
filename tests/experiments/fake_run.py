"""Stands for main.py in the tests of sweeps: a run that takes a moment, leaves the same files and can fail or hang.

Its line in RUNS, a file beside the sweep's directory, says which point ran and how.
"""

import json
import pathlib
import signal
import sys
import time


def main():
    flags = dict(argument.removeprefix("--").partition("=")[::2] for argument in sys.argv[1:])
    model_dir = pathlib.Path(flags["model_dir"])
    learning_rate = float(flags["learning_rate"])
    model_dir.mkdir(exist_ok=True)
    checkpoint = model_dir / "checkpoint"

    def note(what):
        with (model_dir.parent.parent / "RUNS").open("a") as file:
            file.write(f"{what} {model_dir.name}\n")

    def stop(*_):
        note("stopped")
        sys.exit(143)

    signal.signal(signal.SIGTERM, stop)
    note("continued" if checkpoint.exists() else "began")
    if learning_rate > 1e6:
        print("error: the loss is nan after step 1; train anew with a lower --learning_rate.", file=sys.stderr)
        sys.exit(5)
    if learning_rate == 0.125 and not checkpoint.exists():
        # Hangs until it is killed, and ends at once when it is continued.
        checkpoint.touch()
        time.sleep(300)
    while flags["momentum"] == "0.5" and (model_dir.parent.parent / "RUNS").read_text().count("began") < 2:
        # The first run of a sweep of two processes ends when the second process has begun one too.
        time.sleep(0.05)
    time.sleep(0.1)
    (model_dir / "flags.txt").write_text("".join(f"{argument}\n" for argument in sys.argv[1:] if "=" in argument))
    (model_dir / "metrics.csv").write_text("epoch,step,accuracy,val_accuracy\n1,21,0.5,0.5\n")
    result = {"validation_accuracy": 1 - learning_rate, "test_accuracy": learning_rate}
    (model_dir / "result.json").write_text(json.dumps(result))
    note("ended")


if __name__ == "__main__":
    main()
