"""Numbers with units, as people write and read them."""

from __future__ import annotations


def size_text(count: int) -> str:
    """A number of bytes for people, decimal units (`1.4 MB`)."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 1000 or unit == "TB":
            break
    return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"


def seconds_text(seconds: float) -> str:
    """A duration for people (`0.4 s`, `12 s`, `3 min 05 s`)."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """`1 layer`, `5 layers`."""
    return f"{count} {noun if count == 1 else nouns or noun + 's'}"
