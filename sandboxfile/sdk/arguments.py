"""What the arguments of the API may be. Each function gives the value, or a UsageError that names the
argument; nothing is made before all of them were looked at."""

from __future__ import annotations

import math
import re
import signal as signals
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn, TypeVar

from sandboxfile.core.slug import is_slug
from sandboxfile.errors import UsageError
from sandboxfile.spec import words
from sandboxfile.spec.shape import Unfit

T = TypeVar("T")

MOST_LABELS = 5
LABEL_NAME_BYTES = 64
LABEL_VALUE_BYTES = 128
LEAST_MEMORY = 1 << 20
LEAST_DISK = 1 << 16
LEAST_CAPACITY = 8 << 20
MOST_BYTES = 1 << 60
KERNEL_DIRECTORIES = ("/proc", "/sys", "/dev", "/run/sandboxfile", "/run/secrets")

Size = int | str
"""Bytes as a number, or as a text such as `10GB` or `512MiB`."""
Duration = float | str
"""Seconds as a number, or a text such as `30m`."""


def slug(value: object, name: str = "slug") -> str:
    """2 to 32 characters of `[a-z0-9-]`."""
    if not isinstance(value, str) or not is_slug(value):
        raise UsageError(
            f"`{name}` cannot be {value!r}",
            hint="a slug has 2 to 32 of the characters a-z, 0-9 and -, no - at an end and no two in a row",
        )
    return value


def region(value: object) -> str:
    """A region's name. Engines of this machine have one place, and only note it."""
    if value is None:
        return "local"
    if not isinstance(value, str) or not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", value):
        raise UsageError(f"`region` cannot be {value!r}", hint="leave it out, or write a name such as `ord`")
    return value


def size(value: object, name: str, least: int) -> int | None:
    """Bytes, from `least` on; None stays None."""
    if value is None:
        return None
    if isinstance(value, str):
        count = _parsed(words.size, value, name)
    elif isinstance(value, int) and not isinstance(value, bool):
        count = value
    else:
        _wrong(name, value, "write bytes as a number, or a text such as `512MiB` or `10GB`")
    if not least <= count <= MOST_BYTES:
        raise UsageError(f"`{name}` is out of range: {value!r}", hint=f"it takes {least} bytes or more")
    return count


def seconds(value: object, name: str = "timeout") -> float | None:
    """Seconds, more than none and at most a year; None stays None."""
    if value is None:
        return None
    if isinstance(value, str):
        return _parsed(words.duration, value, name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        _wrong(name, value, "write seconds as a number, or a text such as `30s` or `5m`")
    if not 0 < value <= words.MAX_DURATION:  # refuses NaN as well
        raise UsageError(f"`{name}` is out of range: {value!r}", hint="it takes more than 0, up to a year")
    return float(value)


def count(value: object, name: str, least: int, most: int) -> int | None:
    """A whole number; None stays None."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        _wrong(name, value, "write a whole number")
    if not least <= value <= most:
        raise UsageError(f"`{name}` is out of range: {value!r}", hint=f"it takes {least} to {most}")
    return value


def port(value: object, name: str = "port") -> int:
    """A TCP port."""
    number = count(value, name, 1, 65535)
    if number is None:
        _wrong(name, value, "write a number from 1 to 65535")
    return number


def cpus(value: object) -> float | None:
    """Cores, also parts of one; None stays None."""
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
        _wrong("cpus", value, "write a number of cores, such as 0.5 or 2")
    if not 0.01 <= value <= 4096:
        raise UsageError(f"`cpus` is out of range: {value!r}", hint="it takes 0.01 to 4096 cores")
    return float(value)


def variables(value: object, name: str = "env") -> dict[str, str]:
    """Environment variables."""
    found = _texts(value, name)
    for key, text in found.items():
        variable_name(key, name)
        variable_value(text, f"{name}[{key!r}]")
    return found


def variable_name(value: object, name: str = "key") -> str:
    """The name of an environment variable."""
    if not isinstance(value, str) or not re.fullmatch(r"[^=\0]+", value):
        raise UsageError(f"`{name}` has a variable that cannot be: {value!r}")
    return value


def variable_value(value: object, name: str = "value") -> str:
    """The value of an environment variable."""
    if not isinstance(value, str) or "\0" in value:
        raise UsageError(f"`{name}` cannot be a variable's value: {value!r}")
    return value


def labels(value: object) -> dict[str, str]:
    """At most 5 labels; names of at most 64 bytes, values of at most 128."""
    found = _texts(value, "labels")
    if len(found) > MOST_LABELS:
        raise UsageError(f"`labels` has {len(found)} labels", hint=f"a sandbox has at most {MOST_LABELS}")
    for key, text in found.items():
        if not 0 < len(key.encode("utf-8", "replace")) <= LABEL_NAME_BYTES:
            raise UsageError(
                f"`labels` has a name that cannot be: {key!r}", hint=f"it takes 1 to {LABEL_NAME_BYTES} bytes"
            )
        if len(text.encode("utf-8", "replace")) > LABEL_VALUE_BYTES:
            raise UsageError(
                f"`labels[{key!r}]` is too long", hint=f"it takes at most {LABEL_VALUE_BYTES} bytes"
            )
    return found


def mounts(value: object, slug_of: Callable[[object, str], str]) -> dict[str, str]:
    """Volumes by absolute path, ordered by that; `slug_of` says what stands for a volume."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        _wrong("volumes", value, "write {path: slug of a volume}")
    found: dict[str, str] = {}
    for path, volume in value.items():
        if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
            raise UsageError(f"`volumes` has a path that is not absolute: {path!r}")
        parts = [part for part in path.split("/") if part]
        place = "/" + "/".join(parts)
        if not parts or ".." in parts or "." in parts:
            raise UsageError(f"`volumes` cannot have the path {path!r}", hint="write a directory below /")
        if any(place == each or place.startswith(f"{each}/") for each in KERNEL_DIRECTORIES):
            raise UsageError(f"`volumes` cannot have the path {path!r}: it is the sandbox's own")
        if place in found:
            raise UsageError(f"`volumes` has the path {place} twice")
        found[place] = slug_of(volume, "volumes")
    return dict(sorted(found.items()))


def choice(value: object, name: str, known: Sequence[str]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in known:
        words_known = " or ".join(f"`{each}`" for each in known)
        raise UsageError(f"`{name}` cannot be {value!r}", hint=f"it is {words_known}")
    return value


def user(value: object) -> str:
    """`name`, `uid`, each with `:group`."""
    if not isinstance(value, str):
        _wrong("user", value, "write a name or a number")
    return _parsed(words.user, value, "user")


def directory(value: object, name: str = "cwd") -> str:
    """An absolute path."""
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise UsageError(f"`{name}` is not an absolute path: {value!r}")
    return value


def argv(value: Sequence[object]) -> tuple[str, ...]:
    """A program and its arguments."""
    found = []
    for word in value:
        if not isinstance(word, str) or "\0" in word:
            raise UsageError(
                f"a command's words are texts, not {word!r}", hint='write each as its own: "ls", "-l"'
            )
        found.append(word)
    if not found or not found[0]:
        raise UsageError("a command needs a program")
    return tuple(found)


def signal(value: object) -> int:
    """A signal by name (`SIGTERM`) or number."""
    if isinstance(value, str):
        known = signals.Signals.__members__
        if value in known:
            return int(known[value])
    elif isinstance(value, int) and not isinstance(value, bool) and 1 <= value < signals.NSIG:
        return int(value)
    raise UsageError(f"`signal` cannot be {value!r}", hint="write `SIGTERM`, `SIGKILL`, or a number")


def _texts(value: object, name: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        _wrong(name, value, "write a mapping of texts")
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise UsageError(f"`{name}` holds {key!r}: {text!r}", hint="names and values are texts")
    return dict(value)


def _parsed(parse: Callable[[str], T], text: str, name: str) -> T:
    try:
        return parse(text)
    except Unfit as unfit:
        raise UsageError(f"`{name}`: {unfit}", hint=unfit.hint) from None


def _wrong(name: str, value: object, hint: str) -> NoReturn:
    raise UsageError(f"`{name}` cannot be {value!r}", hint=hint)
