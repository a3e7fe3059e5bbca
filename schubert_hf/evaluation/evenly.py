"""Some of many, spread evenly."""

from __future__ import annotations


def evenly(total: int, number: int | None = None) -> list[int]:
    """`number` of the numbers below `total`, or all of them where there are not more."""
    count = total if number is None else min(total, number)
    return [place * total // count for place in range(count)]
