"""The user's settings: where packages come from on this machine, and where things are kept.

Settings never become part of a layer, a lock or a key. They come from a TOML file and from environment
variables, which win. docs/reference/settings.md lists both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from sandboxfile.declared import dataclass
from sandboxfile.errors import Issue, Source, SpecError, UsageError

CONNECTIONS = 8
TIMEOUT = 60.0


@dataclass(frozen=True)
class Settings:
    """Everything the user decided about this machine.

    home:           the store's directory
    apt_mirrors:    base URLs by archive name (`debian`, `debian-security`), tried in order
    snapshot_hosts: base URLs of archives that keep old versions (`<host>/archive/<name>/<time>/…`)
    pip_index_url:  the Python package index instead of uv's own default
    ca_bundle:      certificates to trust instead of the host's, a PEM file
    host_ca:        whether commands with network see `ca_bundle` (or the host's bundle)
    runtime:        the OCI runtime, a name or path; None looks for crun, then runc
    keyring:        a keyring (file or directory) for the archives' signatures instead of the host's
    connections:    how many downloads run at once
    timeout:        seconds without an answer after which an origin counts as down
    """

    home: Path
    apt_mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    snapshot_hosts: tuple[str, ...] = ()
    pip_index_url: str | None = field(default=None, repr=False)
    pip_extra_index_urls: tuple[str, ...] = field(default=(), repr=False)
    pip_find_links: tuple[str, ...] = field(default=(), repr=False)
    ca_bundle: Path | None = None
    host_ca: bool = False
    runtime: str | None = None
    keyring: Path | None = None
    connections: int = CONNECTIONS
    timeout: float = TIMEOUT


def load_settings(environ: Mapping[str, str], *, home: Path | None = None) -> Settings:
    """The settings of a user with these environment variables; `home`, when given, wins over both.

    Raises SpecError with every problem of the settings file, UsageError when it cannot be read.
    """
    path = config_path(environ)
    table = _read(path, _home(environ), named=bool(environ.get("SANDBOXFILE_CONFIG")))
    mirrors = dict(table.mirrors("apt.mirrors"))
    for archive, variable in (
        ("debian", "SANDBOXFILE_APT_MIRROR"),
        ("debian-security", "SANDBOXFILE_APT_SECURITY_MIRROR"),
    ):
        if urls := tuple(environ.get(variable, "").split()):
            mirrors[archive] = urls
    ca_bundle = environ.get("SSL_CERT_FILE") or environ.get("REQUESTS_CA_BUNDLE")
    home_text = environ.get("SANDBOXFILE_HOME")
    settings = Settings(
        home=home
        or (Path(home_text) if home_text else None)
        or table.path("home")
        or _data_home(environ) / "sandboxfile",
        apt_mirrors=mirrors,
        snapshot_hosts=table.texts("apt.snapshot-hosts"),
        pip_index_url=environ.get("UV_DEFAULT_INDEX")
        or environ.get("UV_INDEX_URL")
        or table.text("pip.index-url"),
        pip_extra_index_urls=_indexes(environ) or table.texts("pip.extra-index-urls"),
        pip_find_links=tuple(filter(None, environ.get("UV_FIND_LINKS", "").split(",")))
        or table.texts("pip.find-links"),
        ca_bundle=Path(ca_bundle) if ca_bundle else table.path("ca-bundle"),
        host_ca=table.boolean("host-ca"),
        runtime=environ.get("SANDBOXFILE_RUNTIME") or table.text("runtime"),
        keyring=table.path("apt.keyring"),
        connections=int(table.number("connections", CONNECTIONS, least=1, most=64, whole=True)),
        timeout=table.number("timeout", TIMEOUT, least=1, most=3600),
    )
    table.finish()
    return settings


def config_path(environ: Mapping[str, str]) -> Path:
    """Where the settings file is looked for: SANDBOXFILE_CONFIG, else below XDG_CONFIG_HOME."""
    if named := environ.get("SANDBOXFILE_CONFIG"):
        return Path(named)
    return _xdg(environ, "XDG_CONFIG_HOME", ".config") / "sandboxfile" / "config.toml"


def _data_home(environ: Mapping[str, str]) -> Path:
    return _xdg(environ, "XDG_DATA_HOME", ".local/share")


def _xdg(environ: Mapping[str, str], variable: str, fallback: str) -> Path:
    # The specification says that a relative path is to be ignored.
    given = environ.get(variable, "")
    if given.startswith("/"):
        return Path(given)
    return _home(environ) / fallback


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or os.path.expanduser("~"))


def _indexes(environ: Mapping[str, str]) -> tuple[str, ...]:
    """UV_INDEX, then UV_EXTRA_INDEX_URL: white space between URLs, each maybe with uv's `name=` before."""
    listed = f"{environ.get('UV_INDEX', '')} {environ.get('UV_EXTRA_INDEX_URL', '')}".split()
    urls = []
    for each in listed:
        name, equals, url = each.partition("=")
        urls.append(url if equals and "://" not in name else each)
    return tuple(urls)


def _read(path: Path, home: Path, *, named: bool) -> _Table:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if named:
            raise UsageError(
                f"there is no settings file {path}", hint="SANDBOXFILE_CONFIG names it"
            ) from None
        return _Table({}, None, home)
    except OSError as error:
        raise UsageError(f"the settings file {path} cannot be read: {error.strerror}") from None
    import tomllib

    from sandboxfile.spec.tomlplaces import line_span, syntax_problem

    source = Source(str(path), content.decode("utf-8", "replace"))
    try:
        return _Table(tomllib.loads(content.decode("utf-8")), source, home)
    except UnicodeDecodeError:
        issue = Issue("not-utf8", "the settings file is not UTF-8 text", line_span(source, 1))
        raise SpecError((issue,)) from None
    except (ValueError, RecursionError) as error:
        reason, span = syntax_problem(source, error)
        issue = Issue("bad-settings", f"the settings are not valid TOML: {reason}", span)
        raise SpecError((issue,)) from None


_KNOWN = {
    "": {"home", "runtime", "connections", "timeout", "ca-bundle", "host-ca", "apt", "pip"},
    "apt": {"mirrors", "snapshot-hosts", "keyring"},
    "pip": {"index-url", "extra-index-urls", "find-links"},
}


class _Table:
    """The settings file's content, read key by key; `finish` raises what was wrong with it."""

    def __init__(self, content: Mapping[str, Any], source: Source | None, home: Path) -> None:
        self._content = content
        self._source = source
        self._home = home
        self._issues: list[Issue] = []
        for table, known in _KNOWN.items():
            for key in sorted(self._table(table).keys() - known):
                self._wrong(f"{table}.{key}".lstrip("."), "there is no setting `{}`", _near(key, known))

    def finish(self) -> None:
        if self._issues:
            order = sorted(self._issues, key=lambda issue: issue.span.line if issue.span else 0)
            raise SpecError(tuple(order))

    def text(self, path: str) -> str | None:
        value = self._value(path)
        if value is None or (isinstance(value, str) and value and value.isprintable()):
            return value
        self._wrong(path, "`{}` must be a text")
        return None

    def path(self, path: str) -> Path | None:
        text = self.text(path)
        if text is None:
            return None
        place = self._home / text[2:] if text.startswith("~/") else Path(text)
        if not place.is_absolute():
            self._wrong(path, "`{}` must be an absolute path, or start with ~/")
        return place

    def texts(self, path: str) -> tuple[str, ...]:
        value = self._value(path)
        if value is None:
            return ()
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
            self._wrong(path, "`{}` must be a list of texts")
            return ()
        return tuple(value)

    def mirrors(self, path: str) -> Mapping[str, tuple[str, ...]]:
        value = self._value(path)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._wrong(path, "`{}` must be a table of archive names and URLs")
            return {}
        return {name: self.texts(f"{path}.{name}") for name in value}

    def boolean(self, path: str) -> bool:
        value = self._value(path)
        if value is not None and not isinstance(value, bool):
            self._wrong(path, "`{}` must be true or false")
        return value is True

    def number(self, path: str, default: float, *, least: int, most: int, whole: bool = False) -> float:
        value = self._value(path)
        if value is None:
            return default
        right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not right or not least <= value <= most:
            kind = "whole number" if whole else "number"
            self._wrong(path, f"`{{}}` must be a {kind} from {least} to {most}")
            return default
        return float(value)

    def _value(self, path: str) -> Any:
        value: Any = self._content
        for part in path.split(".", 2):
            if not isinstance(value, Mapping):
                return None
            value = value.get(part)
        return value

    def _table(self, name: str) -> Mapping[str, Any]:
        table = self._content.get(name, {}) if name else self._content
        if isinstance(table, dict):
            return table
        self._wrong(name, "`{}` must be a table")
        return {}

    def _wrong(self, path: str, message: str, hint: str | None = None) -> None:
        from sandboxfile.spec.tomlplaces import span_of

        span = span_of(self._source, tuple(path.split(".", 2))) if self._source else None
        self._issues.append(Issue("bad-settings", message.format(path), span, path, hint))


def _near(key: str, known: set[str]) -> str | None:
    import difflib

    close = difflib.get_close_matches(key.replace("_", "-"), sorted(known), n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else None
