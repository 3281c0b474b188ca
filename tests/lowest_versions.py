"""The lowest version of each dependency that pyproject.toml names, as requirements for pip.

python tests/lowest_versions.py

`make test-lowest` installs them and runs the library's tests with them.
"""

import pathlib
import re
import tomllib

PYPROJECT = pathlib.Path(__file__).parent.parent / "pyproject.toml"


def dependencies() -> list[str]:
    """All requirements of the project and of its extras."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    return [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]


def lowest(requirement: str) -> str:
    """NAME==VERSION of a requirement NAME>=VERSION with or without more bounds.

    Raises:
        ValueError: if it names no lowest version.
    """
    match = re.fullmatch(r"([\w-]+)>=([\w.]+)(,.*)?", requirement)
    if not match:
        raise ValueError(f"{requirement} in pyproject.toml names no lowest version; write NAME>=VERSION")
    return f"{match[1]}=={match[2]}"


if __name__ == "__main__":
    print("\n".join(map(lowest, dependencies())))
