"""Wheels: choosing the one that an installer would choose, and reading what a lock of uv's says."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sandboxfile.declared import dataclass
from sandboxfile.errors import ResolveError
from sandboxfile.inputs.download import shown
from sandboxfile.inputs.interpreter import Interpreter
from sandboxfile.spec.lock import WheelRow


@dataclass(frozen=True)
class Candidate:
    """A file of a distribution, as an index or a lock offers it. `size` is 0 when that is not said."""

    filename: str
    url: str
    sha256: str
    size: int = 0


def rank(filename: str, interpreter: Interpreter) -> tuple[int, tuple[int, str]] | None:
    """How well a wheel fits, lower is better, None when it does not: the best of its tags first, then
    the highest build number."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        _, _, build, tags = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return None
    fits = [interpreter.ranks[tag] for tag in tags if tag in interpreter.ranks]
    number, suffix = build or (0, "")
    return (min(fits), (-number, suffix)) if fits else None


def best(candidates: Iterable[Candidate], interpreter: Interpreter) -> Candidate | None:
    """The wheel to install, None when none fits."""
    ranked = [(r, c.filename, c) for c in candidates if (r := rank(c.filename, interpreter)) is not None]
    return min(ranked, key=lambda item: item[:2])[2] if ranked else None


def read_pylock(text: str, interpreter: Interpreter) -> tuple[WheelRow, ...]:
    """The rows of a PEP 751 document that uv made for the interpreter. Raises ResolveError naming a
    distribution of which no wheel fits, or whose origin has no digest."""
    document = tomllib.loads(text)
    rows = []
    for package in document.get("packages", ()):
        name, version = package["name"], package.get("version", "")
        if "wheels" not in package:
            raise no_wheel(name, version)
        chosen = best((_candidate(wheel) for wheel in package["wheels"]), interpreter)
        if chosen is None:
            raise no_wheel(name, version)
        if not chosen.sha256:
            raise ResolveError(
                f"the index gives no sha256 for {chosen.filename}", hint="use an index that publishes digests"
            )
        rows.append(
            WheelRow(name, version, chosen.filename, chosen.sha256, chosen.size, url=shown(chosen.url))
        )
    return tuple(sorted(rows, key=lambda row: row.name))


def _candidate(wheel: Mapping[str, Any]) -> Candidate:
    url = wheel.get("url") or Path(wheel.get("path", "")).absolute().as_uri()
    filename = wheel.get("name") or unquote(urlsplit(url).path.rpartition("/")[2])
    return Candidate(filename, url, wheel.get("hashes", {}).get("sha256", ""), int(wheel.get("size", 0)))


def no_wheel(name: str, version: str = "") -> ResolveError:
    """The error for a distribution that would have to be built."""
    what = f"{name} {version}".strip()
    return ResolveError(
        f"there is no wheel of {what} for this interpreter and platform",
        hint=f"allow building it from source with `pip: {{build: [{name}]}}`, or choose another version",
    )
