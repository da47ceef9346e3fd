"""The small texts of a Sandboxfile: durations, sizes, modes, paths, names, patterns, hosts.

Each function turns a text into its value or raises Unfit with the sentence to show.
"""

from __future__ import annotations

import re
import warnings

from sandboxfile.spec.shape import Unfit, quote

_DURATION = r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?"
_SIZE = r"(\d{1,15}(?:\.\d{1,3})?) ?([A-Za-z]*)"
_UNITS = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_ENV_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_SECRET_NAME = r"[A-Za-z_][A-Za-z0-9_.-]{0,62}"
_DOCUMENT_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_LABEL_NAME = r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}"
_ACCOUNT = r"(?:[a-z_][a-z0-9_-]{0,31}|[0-9]{1,5})"
_USER = rf"{_ACCOUNT}(?::{_ACCOUNT})?"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*(?::[0-9]{{1,5}})?"
_URL = r"https?://([^/?#\s]+)(?:[/?#]\S*)?"
MAX_DURATION = 366 * 24 * 3600


def duration(text: str) -> float:
    """Seconds of `30s`, `5m`, `1h30m`, `500ms`."""
    match = re.fullmatch(_DURATION, text, re.ASCII)
    if not text or match is None:
        hint = f"write `{text}s` for seconds" if text.isascii() and text.isdigit() else None
        raise Unfit(
            f"{quote(text)} is not a duration", hint=hint or "write a number and a unit: `30s`, `5m`, `1h`"
        )
    hours, minutes, seconds, thousandths = (float(part) if part else 0.0 for part in match.groups())
    value = hours * 3600 + minutes * 60 + seconds + thousandths / 1000
    if not 0 < value <= MAX_DURATION:
        raise Unfit(f"the duration {quote(text)} is {'zero' if value == 0 else 'longer than a year'}")
    return value


def age(text: str) -> float:
    """Seconds of `12h`, `7d`, `2w`."""
    match = re.fullmatch(r"(\d{1,4})([hdw])", text, re.ASCII)
    if match is None:
        hint = f"write `{text}d` for days" if text.isascii() and text.isdigit() else None
        raise Unfit(
            f"{quote(text)} is not an age", hint=hint or "write hours, days or weeks: `12h`, `7d`, `2w`"
        )
    value = float(match[1]) * {"h": 3600, "d": 86400, "w": 7 * 86400}[match[2]]
    if value == 0:
        raise Unfit(f"the age {quote(text)} is zero", hint="an archive is asked once an hour at most: `1h`")
    return value


def size(text: str) -> int:
    """Bytes of `512MB`, `2GiB`, `1.5GB`."""
    match = re.fullmatch(_SIZE, text, re.ASCII)
    unit = match[2] if match else ""
    if match is None or unit not in _UNITS:
        hint = "write a number and a unit: `512MB`, `2GiB`"
        if match and unit:
            near = {known.lower(): known for known in _UNITS}.get(unit.lower())
            near = near or {"k": "KiB", "m": "MiB", "g": "GiB", "t": "TiB"}.get(unit.lower())
            hint = f"write `{match[1]}{near}`" if near else hint
        raise Unfit(f"{quote(text)} is not a size", hint=hint)
    value = int(float(match[1]) * _UNITS[unit])
    if value <= 0:
        raise Unfit(f"the size {quote(text)} is zero")
    return value


def mode(text: str) -> int:
    """Permission bits from octal digits: `0755`, `755`, `0o755`."""
    digits = text.removeprefix("0o")
    if not re.fullmatch(r"[0-7]{3,4}", digits):
        raise Unfit(
            f"{quote(text)} is not a file mode", hint="write three or four octal digits, such as `0755`"
        )
    return int(digits, 8)


def pattern(text: str) -> str:
    """A regular expression, unchanged; it must compile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            re.compile(text)
        except (re.error, OverflowError, RecursionError) as error:
            reason = str(error) or type(error).__name__
            raise Unfit(f"{quote(text)} is not a regular expression: {reason}") from None
    return text


def line(text: str) -> str:
    """A text that holds something, without NUL characters."""
    if not text.strip():
        raise Unfit("the text is empty")
    return plain(text)


def plain(text: str) -> str:
    """Any text without NUL characters."""
    if "\0" in text:
        raise Unfit("a NUL character has no place here")
    return text


def document_name(text: str) -> str:
    """The name of an environment."""
    if not re.fullmatch(_DOCUMENT_NAME, text):
        raise Unfit(
            f"{quote(text)} cannot be a name",
            hint="use letters, digits, `.`, `_` and `-`, 63 characters at most",
        )
    return text


def env_name(text: str) -> str:
    """The name of an environment variable."""
    if not re.fullmatch(_ENV_NAME, text):
        raise Unfit(
            f"{quote(text)} cannot be the name of an environment variable",
            hint="use letters, digits and `_`, not beginning with a digit",
        )
    return text


def param_name(text: str) -> str:
    """The name of a parameter, which templates can write as `params.NAME`."""
    if not re.fullmatch(_ENV_NAME, text):
        raise Unfit(
            f"{quote(text)} cannot be the name of a parameter",
            hint=f"did you mean `{text.replace('-', '_')}`?"
            if "-" in text
            else "use letters, digits and `_`",
        )
    return text


def secret_name(text: str) -> str:
    """The name of a secret, which is also its file name under /run/secrets."""
    if not re.fullmatch(_SECRET_NAME, text):
        raise Unfit(
            f"{quote(text)} cannot be the name of a secret", hint="use letters, digits, `_`, `.` and `-`"
        )
    return text


def label_name(text: str) -> str:
    """The name of a label."""
    if not re.fullmatch(_LABEL_NAME, text):
        raise Unfit(
            f"{quote(text)} cannot be the name of a label", hint="use letters, digits, `.`, `_`, `/` and `-`"
        )
    return text


def user(text: str) -> str:
    """`name`, `uid`, each with `:group`."""
    if not re.fullmatch(_USER, text):
        raise Unfit(f"{quote(text)} is not a user", hint="write a name or a number, with `:group` if needed")
    for number in text.split(":"):
        if number.isdigit() and int(number) > 65535:
            raise Unfit(f"the id {number} is beyond 65535, the last one a sandbox has")
    return text


def host(text: str) -> str:
    """A host name, `*.` before it for all below it, `:port` behind it for one port."""
    if "//" in text or "/" in text:
        raise Unfit(f"{quote(text)} is not a host name", hint="write the name alone, without scheme and path")
    port = text.rpartition(":")[2] if ":" in text else "1"
    if not re.fullmatch(_HOST, text) or not 0 < int(port) < 65536:
        raise Unfit(
            f"{quote(text)} is not a host name",
            hint="write `example.org`, `*.example.org` or `example.org:443`",
        )
    return text.lower()


def url(text: str) -> str:
    """An http or https address without user name and password."""
    match = re.fullmatch(_URL, text)
    if match is None:
        raise Unfit(f"{quote(text)} is not an http or https address")
    if "@" in match[1]:
        raise Unfit(
            f"the address for {quote(match[1].rpartition('@')[2])} holds a user name or password",
            hint="a Sandboxfile is shared: keep credentials in your own settings",
        )
    return text


def absolute_path(text: str) -> str:
    """An absolute path inside the sandbox, `.` and double slashes removed, a final slash kept."""
    if not text.startswith("/"):
        raise Unfit(
            f"{quote(text)} is not an absolute path", hint=f"write {quote('/' + text)}" if text else None
        )
    parts = _parts(text)
    if ".." in parts:
        raise Unfit(f"{quote(text)} steps upwards with `..`", hint="write the path it means")
    path = "/" + "/".join(parts)
    return path + "/" if text.endswith("/") and parts else path


def directory(text: str) -> str:
    """An absolute path inside the sandbox, without a final slash."""
    return absolute_path(text).rstrip("/") or "/"


def target_path(text: str) -> str:
    """Where a file is placed: an absolute path that a layer can hold."""
    path = absolute_path(text)
    top = path.split("/")[1]
    if top in ("proc", "sys", "dev"):
        raise Unfit(f"nothing can be placed in `/{top}`: each sandbox gets its own")
    return path


def context_path(text: str) -> str:
    """A path in the build context: relative, and not out of it."""
    plain(text)
    if not text:
        raise Unfit("the path is empty")
    if text.startswith(("/", "~")):
        raise Unfit(
            f"{quote(text)} is outside the build context",
            hint="write a path relative to the Sandboxfile's directory",
        )
    depth = 0
    for part in _parts(text):
        depth += -1 if part == ".." else 1
        if depth < 0:
            raise Unfit(
                f"{quote(text)} leads out of the build context",
                hint="only files beside and below the Sandboxfile can be used",
            )
    parts: list[str] = []
    for part in _parts(text):
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    path = "/".join(parts) or "."
    return path + "/" if text.endswith("/") and parts else path


def recipe_name(text: str) -> str:
    """A shipped recipe's name, or the path of a recipe's directory (`./path`, `../path`)."""
    if re.match(r"git\+|oci:|github:|[a-z][a-z0-9+.-]*://", text) or "@" in text:
        raise Unfit(
            f"the recipe {quote(text)} is not on this machine; this version reads local recipes only",
            hint="copy the recipe into a directory and write `./path`",
            code="not-yet",
        )
    if text.startswith(("./", "../")) or text in (".", ".."):
        return plain(text)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", text):
        hint = f"write `./{text}` for a directory" if "/" in text and not text.startswith("/") else None
        raise Unfit(
            f"{quote(text)} cannot be a recipe", hint=hint or "write a name, or `./path` for a directory"
        )
    return text


def http_path(text: str) -> str:
    """The path of a request."""
    if not text.startswith("/") or not text.isprintable() or " " in text:
        hint = "the check goes to the port of `start`: write only the path, such as `/health`"
        raise Unfit(f"{quote(text)} is not the path of a request", hint=hint)
    return text


def network(text: str) -> bool:
    """`none` or `false`, `full` or `true`."""
    if text in ("none", "false", "False"):
        return False
    if text in ("full", "true", "True"):
        return True
    raise Unfit(
        f"{quote(text)} is not a network",
        hint="write `none`, `full` or the hosts to allow: `{allow: [example.org]}`",
    )


def _parts(text: str) -> list[str]:
    return [part for part in plain(text).split("/") if part not in ("", ".")]
