"""Writes BUILD, the module graph of this repository for Bazel, from the imports.

python tests/build_file.py

`make build-file` runs it; tests/architecture_test.py checks that BUILD is what it writes.
"""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parent.parent
BUILD = ROOT / "BUILD"
SOURCES = ("main.py", "iterand_tf/**/*.py", "export/**/*.py", "tools/**/*.py")

_HEADER = """\
# Written by `make build-file` from the imports; tests/architecture_test.py checks that it is up to date.
# One target a module, deps = its imports of this project. Third-party packages come from requirements.txt. main is a
# py_library because the launcher of a py_binary makes Bazel download rules_cc, and the query must resolve offline.
"""
_TESTS = """
py_library(
    name = "tests",
    testonly = True,
    srcs = glob(["tests/**/*.py"]),
    deps = [
        ":export",
        ":iterand_tf",
        ":main",
    ],
)
"""
# Files that a module needs beside its source.
_DATA = {"export": '["export/py.typed"]', "iterand_tf": '["iterand_tf/py.typed"]', "main": 'glob(["flags/*.flags"])'}


def module_files() -> dict[str, pathlib.Path]:
    """The files of this project by module name, in alphabetical order."""
    files = [file for pattern in SOURCES for file in ROOT.glob(pattern)]
    return dict(sorted((_module_name(file), file) for file in files))


def _module_name(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: pathlib.Path, modules: dict[str, pathlib.Path]) -> set[str]:
    """Full names of the modules, of this project or others, that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in modules else node.module)
    return found


def build_text() -> str:
    """The contents of BUILD."""
    modules = module_files()
    return _HEADER + "".join(_target(name, file, modules) for name, file in modules.items()) + _TESTS


def _target(name, file, modules):
    deps = sorted(_label(imported) for imported in (imports(file, modules) & modules.keys()) - {name})
    lines = [f'name = "{_label(name)}"', f'srcs = ["{file.relative_to(ROOT)}"]']
    if name in _DATA:
        lines.append(f"data = {_DATA[name]}")
    if len(deps) == 1:
        lines.append(f'deps = [":{deps[0]}"]')
    elif deps:
        lines.append("deps = [\n" + "".join(f'        ":{dep}",\n' for dep in deps) + "    ]")
    return "\npy_library(\n" + "".join(f"    {line},\n" for line in lines) + ")\n"


def _label(name):
    return name.replace(".", "_")


if __name__ == "__main__":
    BUILD.write_text(build_text())
