"""Files that are written whole or not at all."""

import contextlib
import pathlib
import tempfile


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a text file so that a reader sees the old or the new contents, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def check_writable(directory: pathlib.Path) -> None:
    """Raises OSError unless files can be written into a directory, which need not exist yet; leaves nothing."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    finally:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
