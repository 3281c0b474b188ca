"""The imports of this project's files, and the targets of BUILD that should say the same."""

import ast
import dataclasses
import pathlib
from collections.abc import Iterable

ROOT = pathlib.Path(__file__).parent.parent
BUILD = ROOT / "BUILD"
SOURCES = ("main.py", "iterand_tf/**/*.py", "export/**/*.py", "tools/**/*.py")
LINE_LENGTH = 120


def _module_name(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# By the name of the module, in alphabetical order.
FILES = dict(sorted((_module_name(file), file) for pattern in SOURCES for file in ROOT.glob(pattern)))


def imports(file: pathlib.Path) -> set[str]:
    """Full names of the modules, of this project or others, that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in FILES else node.module)
    return found


@dataclasses.dataclass(frozen=True)
class Target:
    """A py_library of BUILD.

    Args:
        files: of its `srcs`.
        deps: the names of other targets.
    """

    files: frozenset[pathlib.Path]
    deps: frozenset[str]


def read_targets(text: str) -> dict[str, Target]:
    """The targets in the text of a BUILD file, by name. The part of Bazel's language that it uses is Python."""
    targets = {}

    def glob(patterns):
        return [str(file.relative_to(ROOT)) for pattern in patterns for file in sorted(ROOT.glob(pattern))]

    def py_library(name, srcs, deps=(), **_):
        targets[name] = Target(frozenset(ROOT / each for each in srcs), frozenset(each.lstrip(":") for each in deps))

    exec(text, {"glob": glob, "py_library": py_library})
    return targets


def what_to_write(targets: dict[str, Target]) -> list[str]:
    """What to write into BUILD so that each file belongs to one target, and deps are the imports; empty if all is well.

    Example:

    >>> what_to_write({"all": Target(frozenset(FILES.values()), frozenset())})
    []
    """
    owners: dict[pathlib.Path, list[str]] = {file: [] for file in FILES.values()}
    for name, target in targets.items():
        for file in target.files & owners.keys():
            owners[file].append(name)
    lines = [
        f'"{file.relative_to(ROOT)}" into the srcs of one target' + (f", not of {' and '.join(names)}" if names else "")
        for file, names in owners.items()
        if len(names) != 1
    ]
    for name, target in targets.items():
        imported = set().union(*map(imports, target.files)) & FILES.keys()
        if name == "main":
            # Python runs the package's __init__.py first, of which imports inside of the package say nothing.
            imported |= {"iterand_tf"} & FILES.keys()
        deps = {owner for module in imported for owner in owners[FILES[module]]} - {name}
        if deps != target.deps:
            lines.append(f'into the target "{name}":\n{deps_line(deps)}')
    return lines


def deps_line(deps: Iterable[str]) -> str:
    """The line of a target for these deps; more than one line where it would be too long.

    Example:

    >>> deps_line({"b", "a"})
    '    deps = [":a", ":b"],'
    """
    labels = [f'":{dep}"' for dep in sorted(deps)]
    line = f"    deps = [{', '.join(labels)}],"
    return (
        line
        if len(line) <= LINE_LENGTH
        else "\n".join(["    deps = [", *(f"        {each}," for each in labels), "    ],"])
    )
