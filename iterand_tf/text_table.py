"""Tables for the terminal and for Markdown: the one place that lays out columns."""

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"-?\d[\d.,]*(e[-+]?\d+)?(?!\w)")


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns. The first row is the head. Columns of numbers are aligned to the right.

    Example:

    >>> print(text_table([("method", "shape", "accuracy"), ("dense", "4x5", "0.9"), ("iterand", "", "0.75")]))
    method   shape  accuracy
    dense    4x5         0.9
    iterand             0.75
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
    """The same table as Markdown."""
    head, *body = (f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    rule = "|" + "|".join("--:" if is_number else "---" for is_number in _number_columns(rows)) + "|"
    return "\n".join([head, rule, *body])


def _number_columns(rows):
    """For each column: whether each cell below the head is empty or begins with a number, and one is not empty."""
    columns = [[cell for cell in column if cell] for column in zip(*rows[1:], strict=True)] or [[]] * len(rows[0])
    return [bool(column) and all(_NUMBER.match(cell) for cell in column) for column in columns]
