"""Requests for packages as they are written: Debian packages, Python requirements, bases."""

from __future__ import annotations

import re
from typing import Any

from sandboxfile.core.slug import is_slug
from sandboxfile.spec.model import (
    AptRequest,
    BaseRequest,
    DebianRequest,
    PipRequest,
    RequirementsFile,
    ScratchRequest,
    SnapshotRequest,
)
from sandboxfile.spec.shape import Unfit, did_you_mean, quote
from sandboxfile.spec.words import context_path, url

SUITES = {"11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky"}
_SUITE_NAMES = (*SUITES.values(), "sid")
_SUITE = r"[a-z][a-z0-9-]{0,39}"
_COMPONENT = r"[a-z][a-z0-9-]*(?:/[a-z0-9-]+)*"
_DEB = r"(?P<name>[^:=/]*)(?P<arch>:[^=/]*)?(?P<version>=[^/]*)?(?P<suite>/.*)?"
_DEB_NAME = r"[a-z0-9][a-z0-9+.-]+"
_DEB_VERSION = r"(?:[0-9]+:)?[0-9][A-Za-z0-9.+~:-]*"
_DEB_SUITE = r"[a-z0-9][a-z0-9./-]*"
_DEB_ARCH = r"[a-z0-9]+(?:-[a-z0-9]+)*"
_TIME = r"(\d{4})-?(\d\d)-?(\d\d)(?:[Tt ](\d\d):?(\d\d):?(\d\d)(?:\.\d+)?(?:[Zz]|[+-]00:?00))?"

_PLAIN_VERSION = r"[0-9]{1,9}(?:\.[0-9]{1,9})*"
_SIMPLE = (
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"\s*(?:\[(?P<extras>[A-Za-z0-9]+(?:\s*,\s*[A-Za-z0-9]+)*)\])?\s*"
    rf"(?P<clauses>(?:(?:==|!=|<=|>=|<|>)\s*{_PLAIN_VERSION}\s*(?:,\s*(?=[=!<>])|$))*)"
)
_DISTRIBUTION = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_OPTIONS = {
    "-c": "constraints",
    "--constraint": "constraints",
    "-i": "index-url",
    "--index-url": "index-url",
    "--extra-index-url": "extra-index-urls",
    "-f": "find-links",
    "--find-links": "find-links",
    "--pre": "prereleases",
}


def base(text: str) -> BaseRequest:
    """`debian:13`, `debian:trixie`, `snapshot:SLUG`, `scratch`."""
    kind, _, rest = text.partition(":")
    if text == "scratch":
        return ScratchRequest()
    if kind == "debian" and "@" not in rest:
        return DebianRequest(suite(rest))
    if kind == "snapshot":
        if not is_slug(rest):
            raise Unfit(
                f"{quote(rest)} is not the slug of a snapshot", hint="`sandboxfile snapshots` lists them"
            )
        return SnapshotRequest(rest)
    if kind == "rootfs":
        raise Unfit("a root filesystem needs its digest", hint="write `{rootfs: FILE-OR-URL, sha256: HEX}`")
    if (
        "@sha256:" in text
        or "/" in text
        or kind in ("oci", "docker", "docker-archive", "ubuntu", "alpine", "python")
    ):
        raise Unfit(
            f"{quote(text)} is an OCI image; this version cannot start from one yet",
            hint="use `debian:13`, or the image's root filesystem as `{rootfs: FILE, sha256: HEX}`",
            code="not-yet",
        )
    known = [f"debian:{name}" for name in (*SUITES, *_SUITE_NAMES)]
    suggestion = f"debian:{text}" if text in _SUITE_NAMES else None
    hint = f"did you mean `{suggestion}`?" if suggestion else did_you_mean(text, [*known, "scratch"])
    raise Unfit(
        f"{quote(text)} is not a base", hint=hint or "write `debian:13`, `snapshot:SLUG` or `scratch`"
    )


def suite(text: str) -> str:
    """The code name of a Debian suite, given by number or by name."""
    if text in SUITES:
        return SUITES[text]
    if not re.fullmatch(_SUITE, text):
        numbers = ", ".join(f"{number} ({name})" for number, name in SUITES.items())
        message = f"{quote(text)} is not a Debian suite" if text else "the Debian suite is missing"
        raise Unfit(message, hint=f"the suites are {numbers} and sid")
    if text in ("stable", "testing", "oldstable", "unstable", "oldoldstable"):
        raise Unfit(
            f"`{text}` means another suite after each release",
            hint="write `sid`" if text == "unstable" else "write a code name, such as `trixie`",
        )
    if text not in _SUITE_NAMES and (hint := did_you_mean(text, _SUITE_NAMES)):
        raise Unfit(f"no Debian suite is called {quote(text)}", hint=hint)
    return text


def component(text: str) -> str:
    """A component of an archive: `main`, `contrib`, `non-free`."""
    if not re.fullmatch(_COMPONENT, text):
        raise Unfit(
            f"{quote(text)} is not a component of an archive", hint="write `main`, `contrib`, `non-free`"
        )
    return text


def archive_suite(text: str) -> str:
    """The suite of an additional archive; one that ends with `/` is a flat repository."""
    if not re.fullmatch(r"[A-Za-z0-9./_~+-]+", text):
        raise Unfit(f"{quote(text)} is not a suite of an archive")
    return text


def snapshot_time(text: str) -> str:
    """A time of the snapshot archive as it writes them: `20261101T000000Z`."""
    from datetime import datetime

    match = re.fullmatch(_TIME, text, re.ASCII)
    try:
        if match is None:
            raise ValueError
        datetime(*(int(part or 0) for part in match.groups()))  # type: ignore[arg-type]
    except ValueError:
        raise Unfit(
            f"{quote(text)} is not a time", hint="write `2026-11-01T00:00:00Z` (UTC) or a date"
        ) from None
    year, month, day, hour, minute, second = (part or "00" for part in match.groups())
    return f"{year}{month}{day}T{hour}{minute}{second}Z"


def apt_request(text: str) -> AptRequest:
    """`name[:arch]`, then `=version` or `/suite`."""
    match = re.fullmatch(_DEB, text, re.DOTALL)
    if match is None or not match["name"]:
        raise Unfit(f"{quote(text)} is not a package")
    name = match["name"]
    arch, version, source = (
        match[key][1:] if match[key] is not None else None for key in ("arch", "version", "suite")
    )
    if name != name.strip() or " " in name:
        raise Unfit(f"{quote(text)} is not one package", hint="list each package by itself")
    if re.fullmatch(_DEB_NAME, name.lower()) and name != name.lower():
        raise Unfit(f"{quote(name)} cannot be a Debian package", hint=f"did you mean `{name.lower()}`?")
    if not re.fullmatch(_DEB_NAME, name):
        raise Unfit(f"{quote(name)} cannot be a Debian package", hint=_deb_hint(text))
    if name.endswith("-"):
        raise Unfit(
            f"apt takes `{name}` as an order to remove `{name[:-1]}`", hint=f"did you mean `{name[:-1]}`?"
        )
    if version is not None and source is not None:
        raise Unfit(f"{quote(text)} names a version and a suite", hint="give one of the two")
    if version is not None and not re.fullmatch(_DEB_VERSION, version):
        hint = f"write `{name}={version[1:]}`" if version.startswith("=") else None
        raise Unfit(f"{quote(version)} is not a Debian version", hint=hint)
    if source is not None and not re.fullmatch(_DEB_SUITE, source, re.IGNORECASE):
        raise Unfit(f"{quote(source)} is not a suite")
    if arch is not None and not re.fullmatch(_DEB_ARCH, arch):
        raise Unfit(f"{quote(arch)} is not an architecture")
    return AptRequest(name, version, source, arch)


def _deb_hint(text: str) -> str | None:
    if match := re.match(r"([a-z0-9+.-]+)\s*(?:>=|<=|~=|>|<|\()", text):
        return f"apt takes one exact version: `{match[1]}=VERSION`"
    return "one package an entry, in lower case" if "," in text else None


def archive_address(text: str) -> str:
    """The address of an archive."""
    return url(text).rstrip("/")


def signing_key(text: str) -> str:
    """An armoured public key, or the path of one in the build context."""
    if text.lstrip().startswith("-----BEGIN"):
        if (
            "-----BEGIN PGP PUBLIC KEY BLOCK-----" not in text
            or "-----END PGP PUBLIC KEY BLOCK-----" not in text
        ):
            raise Unfit("this is not a whole armoured PGP public key")
        return text.strip() + "\n"
    return context_path(text)


def pip_entry(text: str) -> PipRequest | RequirementsFile:
    """A PEP 508 requirement, or `-r FILE`."""
    text = text.strip()
    if not text.startswith("-"):
        return PipRequest(canonical_requirement(text))
    option, _, value = text.replace("=", " ", 1).partition(" ")
    if option.startswith("-r") and option != "-r":
        option, value = "-r", option[2:] or value
    if option in ("-r", "--requirement"):
        return RequirementsFile(context_path(value.strip()))
    if option in ("-e", "--editable"):
        raise Unfit(
            "an editable install points outside the environment",
            hint="place the project with `files` and install it in a `run` step",
        )
    key = _OPTIONS.get(option)
    hint = (
        f"use the key `{key}`: `pip: {{packages: […], {key}: …}}`" if key else "only `-r FILE` is known here"
    )
    raise Unfit(f"{quote(option)} has no place among the packages", hint=hint)


def canonical_requirement(text: str) -> str:
    """The one way to write a PEP 508 requirement: name normalised, extras and versions sorted, blanks as
    `packaging` sets them. Raises Unfit."""
    if re.search(r"\.(txt|in|whl|tar\.gz|zip)$", text) and "@" not in text:
        raise Unfit(f"{quote(text)} is a file, not a requirement", hint=_pip_hint(text))
    simple = re.fullmatch(_SIMPLE, text.strip())
    if simple is not None:
        # The common case, without the 20 ms that importing `packaging` takes.
        name = re.sub(r"[-_.]+", "-", simple["name"]).lower()
        extras = sorted(
            {extra.strip().lower() for extra in (simple["extras"] or "").split(",") if extra.strip()}
        )
        clauses = sorted({re.sub(r"\s", "", clause) for clause in simple["clauses"].split(",")} - {""})
        return name + (f"[{','.join(extras)}]" if extras else "") + ",".join(clauses)
    return _canonical(text)


def _canonical(text: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        requirement = Requirement(text)
    except (InvalidRequirement, RecursionError) as error:
        raise Unfit(f"{quote(text)} is not a requirement: {_reason(error)}", hint=_pip_hint(text)) from None
    if requirement.url is not None:
        _check_address(text, requirement.url)
    extras = sorted({canonicalize_name(extra) for extra in requirement.extras})
    parts = [canonicalize_name(requirement.name), f"[{','.join(extras)}]" if extras else ""]
    parts.append(
        f" @ {requirement.url}" if requirement.url else ",".join(sorted(set(map(str, requirement.specifier))))
    )
    if requirement.marker is not None:
        parts.append(f"{' ' if requirement.url else ''}; {requirement.marker}")
    return "".join(parts)


def _check_address(text: str, address: str) -> None:
    scheme = address.partition(":")[0].lower()
    if scheme not in ("http", "https"):
        raise Unfit(
            f"{quote(text)} comes from {quote(scheme)}; this version takes indexes and http addresses only",
            hint="give a released version, or the address of a wheel",
            code="not-yet",
        )
    url(address)


def _reason(error: Exception) -> str:
    first = (str(error).splitlines() or ["it cannot be parsed"])[0].strip().rstrip(".")
    return first[:1].lower() + first[1:] if first else "it cannot be parsed"


def _pip_hint(text: str) -> str | None:
    if text.endswith((".txt", ".in")):
        return f"to take requirements from a file, write `-r {text}`"
    if match := re.fullmatch(r"([A-Za-z0-9._-]+)\s*=\s*([0-9][^=]*)", text):
        return f"write `{match[1]}=={match[2]}`"
    if text.startswith((".", "/")) or text.endswith((".whl", ".gz", ".zip")):
        return "place the project with `files` and install it in a `run` step"
    return "write it as `name`, `name==1.2` or `name[extra]>=1,<2`"


def distribution(text: str) -> str:
    """The normalised name of a Python distribution."""
    if not re.fullmatch(_DISTRIBUTION, text):
        raise Unfit(f"{quote(text)} is not the name of a distribution")
    return re.sub(r"[-_.]+", "-", text).lower()


def links(text: str) -> str:
    """A place with wheels: an address, or a directory in the build context."""
    return url(text) if "://" in text else context_path(text)


def newest(text: str) -> str:
    """A time as uv takes it, to leave out what was published later: `2026-11-01T00:00:00Z`."""
    time = snapshot_time(text)
    date = f"{time[:4]}-{time[4:6]}-{time[6:8]}"
    return f"{date}T{time[9:11]}:{time[11:13]}:{time[13:15]}Z"


def rootfs_location(text: str) -> str:
    """A root filesystem tar: an address, or a path in the build context."""
    return links(text)


def sha256(text: str) -> str:
    """64 hexadecimal digits, `sha256:` before them allowed."""
    digits = text.removeprefix("sha256:").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise Unfit(f"{quote(text)} is not a sha256 digest", hint="write its 64 hexadecimal digits")
    return digits


def request_name(request: Any) -> str:
    """What makes two entries of a package list the same: the canonical text."""
    if isinstance(request, RequirementsFile):
        return f"-r {request.path}"
    return request.requirement if isinstance(request, PipRequest) else str(request)
