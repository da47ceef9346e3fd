"""The tables of scale.py, and their place in RESULTS.md."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from scale_chart import Series

NOISE = 0.2
"""What of the least cost a measurement may be off by on a busy machine."""
BUDGETS = {("the planner alone", 1000): 0.5, ("plan, nothing built", 1000): 0.5}
"""Seconds by series and number."""


def markdown(series: Sequence[Series], *, host: str, command: str, rounds: int) -> str:
    """A table for each axis, with how the cost grew over the last ten-fold step."""
    lines = [
        "## How cost grows",
        "",
        f"`{command}` on {host}; CPU seconds of whole processes, the least of {rounds}.",
        "",
    ]
    for axis, group in groupby(series, key=lambda each: each.axis):
        members = list(group)
        numbers = [number for number, _ in members[0].points]
        lines.append(f"| {axis} | " + " | ".join(f"{n:,}" for n in numbers) + " | growth |")
        lines.append("|---|" + "---:|" * (len(numbers) + 1))
        for each in members:
            cells = " | ".join(_seconds(seconds) for _, seconds in each.points)
            lines.append(f"| {each.name} | {cells} | {_growth(each)} |")
        lines += ["", f"![{axis}](scale-{axis.replace(' ', '-')}.svg)", ""]
    missed = [
        f"- MISSED: {each.name} at {number} {each.axis} takes {_seconds(seconds)}, not {_seconds(budget)}"
        for each in series
        for number, seconds in each.points
        if (budget := BUDGETS.get((each.name, number))) is not None and seconds > budget
    ]
    return "\n".join([*lines, *missed]).rstrip() + "\n"


def replace_section(page: str, name: str, text: str) -> str:
    """A page with the section of that name replaced, or put at its end."""
    begin, end = f"<!-- {name}: written by benchmarks/{name}.py -->", f"<!-- end of {name} -->"
    section = f"{begin}\n\n{text}\n{end}\n"
    if begin in page and end in page:
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(f"{end}\n")
        return before + section + after
    return f"{page.rstrip()}\n\n{section}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _growth(series: Series) -> str:
    """Cost beyond that of the smallest, from the last but one number to the last, beside their ratio."""
    (first, least), (some, before), (most, last) = series.points[0], *series.points[-2:]
    own, more = before - least, last - least
    if own <= 0 or more <= NOISE * least:
        return "none to be seen"
    return f"x{more / own:.1f} for x{(most - first) / (some - first):.1f}"
