"""Medians, ratios and the Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

ROWS: Mapping[str, str] = {
    "base": "bootstrap of the base",
    "cold": "cold build, base present",
    "warm": "the same, packages in the store or cache mounts",
    "unchanged": "nothing changed",
    "pip": "one pip package added",
    "pip-locked": "the same, already locked and fetched",
    "apt": "one apt package added",
    "apt-locked": "the same, already locked and fetched",
    "pip-moved": "one pip package in another version",
    "file": "one file changed",
    "check": "one check changed",
    "run": "run -- true, whole process",
}

Samples = Mapping[str, Mapping[str, Sequence[float]]]
"""Tool -> row -> seconds."""


def medians(samples: Samples) -> dict[str, dict[str, float]]:
    """Tool -> row -> median seconds."""
    return {tool: {row: median(times) for row, times in rows.items()} for tool, rows in samples.items()}


def markdown(samples: Samples, ours: str = "sandboxfile") -> str:
    """A table with one row for each measurement; a peer's cell says how many times ours it takes."""
    middle = medians(samples)
    tools = list(samples)
    lines = ["| | " + " | ".join(tools) + " |", "|---|" + "---:|" * len(tools)]
    for row, title in ROWS.items():
        if not any(row in middle[tool] for tool in tools):
            continue
        cells = []
        for tool in tools:
            seconds = middle[tool].get(row)
            own = middle.get(ours, {}).get(row)
            cell = "—" if seconds is None else _duration(seconds)
            if seconds is not None and own and tool != ours:
                cell += f" ({seconds / own:.2g}x)"
            cells.append(cell)
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def costs(processor: Samples, memory: Samples) -> str:
    """A table of what builds took of the machine: processor seconds and megabytes at the peak."""
    seconds, megabytes = medians(processor), medians(memory)
    tools = list(processor)
    lines = ["| | " + " | ".join(tools) + " |", "|---|" + "---:|" * len(tools)]
    for row in ("base", "cold", "warm", "pip", "apt"):
        if any(row in seconds[tool] for tool in tools):
            cells = [
                f"{seconds[tool][row]:.1f} s, {megabytes[tool][row]:.0f} MB" if row in seconds[tool] else "—"
                for tool in tools
            ]
            lines.append(f"| {ROWS[row]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
