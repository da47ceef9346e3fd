"""The report of boot.py: tables, and what became of each budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

BUDGETS = {"root": (0.015, 0.040), "user": (0.030, 0.040)}
"""Seconds from create to the first command's exit: the median and the 95th of 100."""
RATE, AT = 100.0, "2"
IDLE = 4e6
SNAPSHOT = 0.020
INDEPENDENT = 1.25
"""How much longer the slowest of several sizes may take than the fastest and still count as the same."""


def percentile(samples: Sequence[float], part: float) -> float:
    """The sample that `part` of all are not above."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def markdown(results: Mapping[str, Mapping[str, Any]], peers: Mapping[str, Sequence[float]]) -> str:
    """Everything that was measured; `results` by `root` and `user`, `peers` whole processes by name."""
    lines: list[str] = []
    _table(lines, "whole process: a sandbox that runs `true`", _whole_rows(results, peers))
    _table(lines, "through the API, warm store, hardened", _latency_rows(results))
    for section, title in (("layers", "by number of layers"), ("size", "by size of the snapshot")):
        rows = [
            (f"{who}, {what}", samples)
            for who, found in results.items()
            for what, samples in found.get(section, {}).items()
        ]
        _table(lines, f"create to the first command's exit, {title}", rows)
    rows = [
        (f"{who}, {what}", samples)
        for who, found in results.items()
        for what, samples in (found.get("volume") or {}).items()
    ]
    _table(lines, "snapshot of a detached volume", rows)
    _plain(
        lines,
        ("", "at once", "boots a second"),
        [
            (who, at, f"{rate:.0f}")
            for who, found in results.items()
            for at, rate in found.get("rate", {}).items()
        ],
    )
    _plain(
        lines,
        ("", "idle sandboxes", "MB of host memory each", "MB not given back at the end"),
        [
            (
                who,
                f"{m['count']}",
                f"{_each(m) / 1e6:.2f}",
                f"{max(0.0, m['before'] - m['after']) / 1e6:.0f}",
            )
            for who, found in results.items()
            if (m := found.get("memory"))
        ],
    )
    lines += _verdicts(results, peers)
    for who, found in results.items():
        if "trace" in found:
            lines += ["", f"One boot of median length, by step ({who}):", ""]
            _plain(
                lines,
                ("at ms", "takes ms", "step"),
                [(f"{at * 1000:.1f}", f"{took * 1000:.1f}", what) for what, at, took in found["trace"]],
            )
    return "\n".join(lines) + "\n"


def _whole_rows(
    results: Mapping[str, Mapping[str, Any]], peers: Mapping[str, Sequence[float]]
) -> list[tuple[str, Sequence[float]]]:
    ours = [
        (f"sandboxfile run, {who}", found["process"]) for who, found in results.items() if "process" in found
    ]
    return [*ours, *peers.items()]


def _latency_rows(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Sequence[float]]]:
    titles = {"total": "create to the first command's exit", "create": "create", "close": "close"}
    return [
        (f"{who}: {title}", found["latency"][name])
        for who, found in results.items()
        if "latency" in found
        for name, title in titles.items()
    ]


def _table(lines: list[str], title: str, rows: Sequence[tuple[str, Sequence[float]]]) -> None:
    cells = [
        (name, *(f"{percentile(samples, part) * 1000:.1f}" for part in (0.5, 0.95, 0.99)), f"{len(samples)}")
        for name, samples in rows
    ]
    _plain(lines, (title, "p50 ms", "p95 ms", "p99 ms", "samples"), cells)


def _plain(lines: list[str], head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        lines += ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        lines.append("")


def _each(memory: Mapping[str, float]) -> float:
    return (memory["before"] - memory["during"]) / memory["count"]


def _verdicts(results: Mapping[str, Mapping[str, Any]], peers: Mapping[str, Sequence[float]]) -> list[str]:
    """One line for each budget: kept or missed, and by how much."""
    said = []

    def judge(what: str, value: float, limit: float, unit: str, *, least: bool = False) -> None:
        kept = value >= limit if least else value <= limit
        said.append(f"- {'kept' if kept else 'MISSED'}: {what}: {value:.1f} {unit}, budget {limit:.1f}")

    for who, found in results.items():
        if "latency" in found:
            total = found["latency"]["total"]
            for part, limit in zip((0.5, 0.95), BUDGETS[who], strict=True):
                name = f"create to first exit as {who}, p{part * 100:.0f}"
                judge(name, percentile(total, part) * 1000, limit * 1000, "ms")
        for section in ("layers", "size"):
            middles = [percentile(samples, 0.5) for samples in found.get(section, {}).values()]
            if len(middles) > 1:
                ratio = max(middles) / min(middles)
                judge(f"independent of {section} as {who}, slowest to fastest", ratio, INDEPENDENT, "times")
        if "process" in found and "podman run" in peers:
            half = percentile(peers["podman run"], 0.5) / 2
            judge(
                f"run, whole process, as {who}", percentile(found["process"], 0.5) * 1000, half * 1000, "ms"
            )
        for samples in (found.get("volume") or {}).values():
            judge(f"volume snapshot as {who}", percentile(samples, 0.5) * 1000, SNAPSHOT * 1000, "ms")
        if AT in found.get("rate", {}):
            judge(f"boots a second as {who}, {AT} at once", found["rate"][AT], RATE, "", least=True)
        if "memory" in found:
            judge(f"memory of an idle sandbox as {who}", _each(found["memory"]) / 1e6, IDLE / 1e6, "MB")
    return said
