"""flags.txt, the flags of a run, and which of them must stay when the run is continued."""

import dataclasses
from typing import Any

from iterand_tf.training.config import Config, option_fields


def flags_text(config: Config) -> str:
    """The flags of a run, one a line, as a flagfile that makes the same run anew."""
    lines = (_line(field, value) for field, value in _values(config) if field.metadata.get("recorded", True))
    return "".join(f"{line}\n" for line in lines if line)


def binding_flags(config: Config) -> set[str]:
    """Those of a run's flags that must be the same when it is continued, and on all of its workers."""
    return {_line(field, value) for field, value in _values(config) if _is_binding(field)} - {""}


def changed_flags(written: str, config: Config) -> str:
    """How the binding flags of a configuration differ from a run's flags.txt, a phrase, or "" where they agree.

    A flag that the run's version of this project did not have had its default then.
    """
    free = {field.name for field, _ in _values(config) if not _is_binding(field)}
    theirs = {line for line in written.splitlines() if _name(line) not in free}
    known, defaults = {_name(line) for line in theirs}, binding_flags(Config())
    ours = {line for line in binding_flags(config) if _name(line) in known or line not in defaults}
    if theirs == ours:
        return ""
    return f"{' '.join(sorted(ours - theirs)) or 'fewer flags'} instead of {' '.join(sorted(theirs - ours))}"


def _values(config: Config) -> list[tuple[dataclasses.Field, Any]]:
    groups = ((getattr(config, part), fields) for part, fields in option_fields().items())
    return [(field, getattr(group, field.name)) for group, fields in groups for field in fields]


def _line(field, value):
    return "" if value in (None, "") else f"--{field.name}={value}"


def _is_binding(field):
    return field.metadata.get("binding", True)


def _name(line):
    return line.removeprefix("--").partition("=")[0]
