"""Tables for the terminal and for Markdown."""

import re
from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns, the first row being the head; columns of numbers stand to the right.

    Example:

    >>> print(text_table([("method", "accuracy"), ("dense", "0.9"), ("iterand", "0.75")]))
    method   accuracy
    dense         0.9
    iterand      0.75
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = _number_columns(rows)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    )


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The same as Markdown.

    Example:

    >>> print(markdown_table([("method", "accuracy"), ("dense", "0.9")]))
    | method | accuracy |
    |---|--:|
    | dense | 0.9 |
    """
    head, *body = (f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    rule = "|" + "|".join("--:" if is_number else "---" for is_number in _number_columns(rows)) + "|"
    return "\n".join([head, rule, *body])


def _number_columns(rows):
    """For each column whether its cells, below the head, begin with numbers, those that are empty apart."""
    columns = [[cell for cell in column if cell] for column in zip(*rows[1:], strict=True)] or [[]] * len(rows[0])
    return [bool(column) and all(re.match(r"-?\d", cell) for cell in column) for column in columns]
