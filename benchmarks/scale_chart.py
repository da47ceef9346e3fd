"""A plot with two logarithmic axes, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 36, 24, 64
COLOURS = ("#1668b8", "#c2410c", "#15803d", "#7e22ce")


@dataclass
class Series:
    """Seconds by number, for one thing that was measured. `axis` is what is counted."""

    name: str
    axis: str
    points: list[tuple[int, float]] = field(default_factory=list)

    def add(self, number: int, seconds: float) -> None:
        """Note a measurement."""
        self.points.append((number, seconds))


def chart(series: Sequence[Series]) -> str:
    """The series of one axis, and a dashed line that grows as the number does."""
    numbers = [number for each in series for number, _ in each.points]
    seconds = [value for each in series for _, value in each.points]
    x_from, x_to = floor(log10(min(numbers))), ceil(log10(max(numbers)))
    y_from, y_to = floor(log10(max(min(seconds), 1e-4))), ceil(log10(max(seconds)))

    def x(number: float) -> float:
        return LEFT + (log10(number) - x_from) / (x_to - x_from) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (y_to - log10(max(value, 1e-4))) / (y_to - y_from) * (HEIGHT - TOP - BOTTOM)

    axis = series[0].axis
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="12" aria-label="CPU seconds by {escape(axis)}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for power in range(x_from, x_to + 1):
        at = x(10**power)
        parts.append(_line(at, TOP, at, HEIGHT - BOTTOM, "#ddd"))
        parts.append(_text(at, HEIGHT - BOTTOM + 16, f"{10**power:,}", "middle"))
    for power in range(y_from, y_to + 1):
        at = y(10.0**power)
        parts.append(_line(LEFT, at, WIDTH - RIGHT, at, "#ddd"))
        parts.append(_text(LEFT - 6, at + 4, _duration(power), "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 32, axis, "middle"))
    linear = [(10.0**x_from, 10.0**y_from), (10.0**x_to, 10.0 ** (y_from + x_to - x_from))]
    over = linear[1][1] / 10.0**y_to
    if over > 1:
        linear[1] = (linear[1][0] / over, 10.0**y_to)
    (x1, y1), (x2, y2) = linear
    parts.append(_line(x(x1), y(y1), x(x2), y(y2), "#999", dashed=True))
    at = LEFT
    for colour, each in zip(COLOURS, series, strict=False):
        points = " ".join(f"{x(n):.1f},{y(s):.1f}" for n, s in each.points)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(n):.1f}" cy="{y(s):.1f}" r="3" fill="{colour}"/>' for n, s in each.points]
        parts.append(f'<rect x="{at}" y="{HEIGHT - 18}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(at + 14, HEIGHT - 9, each.name, "start"))
        at += 30 + 7 * len(each.name)
    parts.append(_text(at, HEIGHT - 9, "dashed: linear", "start"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _duration(power: int) -> str:
    return f"{10.0**power:g} s" if power >= 0 else f"{10.0 ** (power + 3):g} ms"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 4"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dash}/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333">{escape(text)}</text>'
