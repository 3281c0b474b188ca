"""Runs the benchmarks and writes what they measured as one JSON file.

    python benchmarks/suite.py --json=FILE [--quick] [--only=masks,steps] [--data_dir=TFDS_ROOT]

Every benchmark runs its sides in one process, in turns, and prints ratios first: machines differ by four times in
speed, ratios do not. A benchmark that is in FILE already is replaced, others stay, if FILE is of the same machine. One
that has no case without data, as --help says, is left as it is.
`benchmarks/report.py` writes docs/performance.md from FILE.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import time

import checkpoints
import defaults
import environment
import evaluation
import masks
import memory
import pipelines
import rerandomization
import saved_models
import serving
import sides
import startup
import steps

BENCHMARKS = {
    "masks": masks.cases,
    "steps": steps.cases,
    "memory": memory.cases,
    "rerandomization": rerandomization.cases,
    "evaluation": evaluation.cases,
    "defaults": defaults.cases,
    "startup": startup.cases,
    "exports": saved_models.cases,
    "serving": serving.cases,
    "pipelines": pipelines.cases,
    "checkpoints": checkpoints.cases,
}
PACKAGES = ("tensorflow", "keras", "numpy", "keras-cv", "ai-edge-litert", "openvino", "onnxruntime")
INSTRUCTION_SETS = (
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "sve",
)


def machine():
    """Processor, its instruction sets that matter here, and cores that this process may use."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    info = dict(map(str.strip, each.split(":", 1)) for each in lines if ":" in each)
    flags = info.get("flags", info.get("Features", "")).split()
    return {
        "processor": info.get("model name", platform.processor()),
        "instruction_sets": [each for each in INSTRUCTION_SETS if each in flags],
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
    }


def versions(torch_python):
    """Of Python and of the packages that compute."""
    found = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}
    if torch_python:
        command = [torch_python, "-c", "import torch; print(torch.__version__)"]
        found["torch"] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return found


def commit():
    """Of this checkout, with a + behind it if files differ from it."""
    git = ["git", "-C", environment.ROOT]
    name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "*.py"], check=False).returncode
    return name.strip() + ("+" if changed else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true", help="fewer cases and rounds")
    parser.add_argument("--only", default=",".join(BENCHMARKS))
    parser.add_argument(
        "--data_dir", default="", help="TFDS root with cifar10 and imagenet2012, for pipelines and checkpoints"
    )
    parser.add_argument("--model_dirs", default="", help="finished runs on cifar10, comma-separated, for serving")
    parser.add_argument("--torch_python", default="", help="a Python with torch and NumPy, for torch.kthvalue in masks")
    options = parser.parse_args()
    record = {"machine": machine(), "benchmarks": {}}
    if options.json and options.json.exists():
        before = json.loads(options.json.read_text())
        if before["machine"] != record["machine"]:
            parser.error(f"{options.json} is of another machine; give another file")
        record["benchmarks"] = before["benchmarks"]
    for name in options.only.split(","):
        print(f"\n{name}", flush=True)
        start, cases, load = time.perf_counter(), [], os.getloadavg()[0]
        for case in BENCHMARKS[name](options):
            cases.append(case.record())
            print("  " + sides.line(cases[-1]), flush=True)
        if not cases:
            print("  no case without --data_dir, or in a quick run")
            continue
        run = {"commit": commit(), "date": str(datetime.date.today()), "quick": options.quick, "load_before": load}
        run |= {"versions": versions(options.torch_python), "seconds": round(time.perf_counter() - start)}
        record["benchmarks"][name] = run | {"cases": cases}
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(record, indent=1) + "\n")
    print(f"\n{sum(run['seconds'] for run in record['benchmarks'].values()):,} s for what is recorded")


if __name__ == "__main__":
    main()
