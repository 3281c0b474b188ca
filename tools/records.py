"""One JSON file a run: the run, and where it was made."""

import dataclasses
import json
import pathlib
import platform
import re
import subprocess
from typing import Self

from iterand_tf.errors import ModelDirError
from iterand_tf.experiments.finished_runs import Run, read_flags

INSTRUCTIONS = ("amx_bf16", "avx512_vnni", "avx512f", "avx2")


@dataclasses.dataclass(frozen=True)
class Record:
    """A finished run of docs/results.md.

    Args:
        run: the run.
        source: its `commit`, `hardware` and `command`.
    """

    run: Run
    source: dict[str, str]

    @classmethod
    def from_json(cls, path: pathlib.Path) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            ModelDirError: if it is damaged.
        """
        try:
            contents = json.loads(path.read_text(encoding="utf-8"))
            flags = read_flags("\n".join(contents["flags"]))
            return cls(Run(flags, contents["result"], contents["epochs"], contents["layers"]), contents["source"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise ModelDirError(f"{path} cannot be read as the record of a run; collect it again.") from error

    def to_json(self) -> str:
        """The record as text. Flags at their defaults, and where the data is, are left out."""
        run, defaults = self.run, read_flags("")
        changed = {name: value for name, value in run.flags.items() if value != defaults[name] and name != "data_dir"}
        flags = [f"--{name}={value}" for name, value in changed.items()]
        parts = {"flags": flags, "source": self.source, "result": run.result, "layers": run.layers}
        # An epoch is a line.
        epochs = ",\n".join(f"    {json.dumps(row)}" for row in run.epochs)
        return f'{json.dumps(parts, indent=2)[:-2]},\n  "epochs": [\n{epochs}\n  ]\n}}\n'


def this_hardware() -> str:
    """The processor of this machine in words: its name, cores, and the instructions that matter here."""
    try:
        information = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^model name\s*: (.*)$", information, re.MULTILINE)
    flags = re.search(r"^flags\s*: (.*)$", information, re.MULTILINE)
    known = [each for each in INSTRUCTIONS if flags and each in flags[1].split()]
    cores = information.count("processor\t")
    return f"{name[1] if name else platform.machine()}, {cores} cores, {', '.join(known) or 'no vector instructions'}"


def this_commit() -> str:
    """The commit of the working tree, with + if it has been changed since."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
