"""From what was read to model values: the checks and defaults that concern one value at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandboxfile.declared import replace
from sandboxfile.spec.fragment import RULES, Fragment, Rule, extend
from sandboxfile.spec.model import (
    AptSource,
    BaseRequest,
    Check,
    DebianRequest,
    FileRequest,
    HttpCheck,
    Network,
    RequirementsFile,
    Resources,
    RootfsRequest,
    RunStep,
    Secret,
    Start,
)
from sandboxfile.spec.shape import Found, Reader


def fragment_of(document: Found, reader: Reader, *, root: str = "") -> Fragment:
    """The model values of a document that was read. `root` is a recipe's directory."""
    return _Builder(reader, root).build(document)


class _Builder:
    def __init__(self, reader: Reader, root: str) -> None:
        self.reader = reader
        self.root = root
        self.fragment = Fragment()

    def build(self, document: Found) -> Fragment:
        sections: dict[str, Callable[[Found], Any]] = {
            "base": self._base,
            "start": self._start,
            "resources": self._resources,
            "network": _network_policy,
        }
        lists: dict[str, Callable[[Found], Any]] = {
            "files": self._file,
            "run": self._step,
            "verify": self._check,
        }
        for key, found in document.value.items():
            if key in ("apt", "pip"):
                self._packages(key, found)
            elif key in lists:
                built = ((item, lists[key](item)) for item in found.value)
                self.fragment.lists[key] = [
                    Found(value, item.span, item.path) for item, value in built if value
                ]
            elif key in sections:
                self.fragment.ones[key] = Found(sections[key](found), found.span, found.path)
            elif key == "secrets":
                self._secrets(found)
            elif RULES.get(key) is Rule.MAP:
                self.fragment.maps[key] = dict(found.value)
            elif RULES.get(key) is Rule.ONE:
                self.fragment.ones[key] = found
        return self.fragment

    def _packages(self, section: str, found: Found) -> None:
        self.fragment.ones[section] = Found(section, found.span, found.path)
        parts = {"packages": found} if isinstance(found.value, list) else found.value
        for key, part in parts.items():
            path = f"{section}.{key}"
            if RULES[path] is Rule.MAP:
                self.fragment.maps[path] = {
                    name: self._source(name, each) for name, each in part.value.items()
                }
            elif RULES[path] is Rule.ONE:
                self.fragment.ones[path] = part
            elif key == "packages":
                placed = [
                    Found(replace(item.value, span=item.span), item.span, item.path) for item in part.value
                ]
                extend(self.fragment.lists.setdefault(path, []), path, placed, self.reader)
            else:
                self.fragment.lists[path] = list(part.value)
        if self.root:
            for item in self.fragment.lists.get("pip.packages", []):
                if isinstance(item.value, RequirementsFile):
                    hint = "list the requirements in the recipe itself"
                    self.reader.issue(
                        "bad-value", "a recipe cannot read a requirements file", item.span, item.path, hint
                    )

    def _source(self, name: str, found: Found) -> Found:
        key = found.get("signed-by", "")
        if self.root and key and "\n" not in key:
            span = found.value["signed-by"].span
            hint = "put the armoured key in the recipe itself"
            self.reader.issue("bad-value", "a recipe cannot name a key file", span, found.path, hint)
        suites, components = _many(found, "suites"), _many(found, "components")
        if suites and "components" not in found.written and not all(suite.endswith("/") for suite in suites):
            message = f"`{found.path}` needs the key `components`"
            self.reader.issue("missing-key", message, found.span, found.path, "add `components: main`")
        source = AptSource(
            name, _many(found, "uris"), suites, components, key, _many(found, "architectures"), found.span
        )
        return Found(source, found.span, found.path)

    def _base(self, found: Found) -> BaseRequest | None:
        value = found.value
        if not isinstance(value, dict):
            request: BaseRequest = replace(value, span=found.span)
            return request
        if "rootfs" in value and "sha256" in value:
            return RootfsRequest(value["rootfs"].value, value["sha256"].value, value["rootfs"].span)
        if "debian" in value:
            components = found.values("components") or ("main",)
            return DebianRequest(
                value["debian"].value,
                found.get("mirror"),
                found.get("snapshot"),
                components,
                value["debian"].span,
            )
        return None

    def _file(self, found: Found) -> FileRequest | None:
        source, content, to = found.value.get("from"), found.value.get("content"), found.value.get("to")
        if source and content:
            message = f"`{found.path}` has both `from` and `content`"
            related = (("`from` is given here", source.span),)
            self.reader.issue("conflict", message, content.span, found.path, "keep one of them", related)
            return None
        if not found.written & {"from", "content"}:
            message = f"`{found.path}` needs one of the keys `from` or `content`"
            self.reader.issue("missing-key", message, found.span, found.path)
            return None
        if to is None or not (source or content):
            return None
        if content and to.value.endswith("/"):
            message = "inline `content` needs a file name, not a directory"
            self.reader.issue("bad-value", message, to.span, to.path, f"write `{to.value}NAME`")
            return None
        return FileRequest(
            to.value,
            source.value if source else None,
            content.value if content else None,
            found.get("mode"),
            found.get("owner"),
            self.root,
            (source or to).span,
        )

    def _step(self, found: Found) -> RunStep | None:
        if isinstance(found.value, str):
            return RunStep(found.value, span=found.span)
        run = found.value.get("run")
        if run is None:
            return None
        secrets = found.value.get("secrets")
        self.fragment.secret_uses.extend(secrets.value if secrets else ())
        return RunStep(
            run.value,
            secrets=found.values("secrets"),
            timeout=found.get("timeout"),
            span=run.span,
            **_where(found),
        )

    def _check(self, found: Found) -> Check | None:
        if isinstance(found.value, str):
            return Check(found.value, span=found.span)
        timeout = found.get("timeout", Check.timeout)
        if (http := found.value.get("http")) is not None:
            request = _http(http)
            if request is None:
                return None
            return Check(http=request, name=found.get("name"), timeout=timeout, span=http.span)
        run = found.value.get("run")
        if run is None:
            return None
        return Check(
            run.value,
            exit=found.get("exit", 0),
            stdout=found.get("stdout"),
            stderr=found.get("stderr"),
            timeout=timeout,
            span=run.span,
            **_where(found),
        )

    def _start(self, found: Found) -> Start | None:
        if isinstance(found.value, str):
            return Start(found.value, span=found.span)
        command = found.value.get("command")
        if command is None:
            return None
        return Start(command.value, found.get("port"), found.get("timeout"), command.span)

    def _resources(self, found: Found) -> Resources:
        values = {key: each.value for key, each in found.value.items()}
        return Resources(**values, span=found.span)

    def _secrets(self, found: Found) -> None:
        secrets = self.fragment.maps.setdefault("secrets", {})
        for item in found.value:
            if isinstance(item.value, str):
                secret = Secret(item.value, span=item.span)
            elif (name := item.value.get("name")) is None:
                continue
            else:
                if "env" in item.value and "file" in item.value:
                    message = f"`{item.path}` has both `env` and `file`"
                    self.reader.issue(
                        "conflict", message, item.span, item.path, "a secret comes from one place"
                    )
                hosts = item.values("hosts")
                secret = Secret(name.value, item.get("env"), item.get("file"), hosts, name.span)
            if (first := secrets.get(secret.name)) is not None:
                related = (("first listed here", first.span),)
                message = f"the secret `{secret.name}` is listed twice"
                self.reader.issue("duplicate", message, item.span, item.path, None, related)
            else:
                secrets[secret.name] = Found(secret, item.span, item.path)


def _where(found: Found) -> dict[str, Any]:
    """The arguments that steps and checks share."""
    env = {name: each.value for name, each in found.get("env", {}).items()}
    network = found.value.get("network")
    return {
        "name": found.get("name"),
        "env": env,
        "workdir": found.get("workdir"),
        "user": found.get("user"),
        "network": _hosts(network) if network else False,
    }


def _hosts(found: Found) -> bool | tuple[str, ...]:
    if isinstance(found.value, bool):
        return found.value
    return found.values("allow") if isinstance(found.value, dict) else found.values()


def _network_policy(found: Found) -> Network:
    allowed = _hosts(found)
    if isinstance(allowed, bool):
        return Network("full" if allowed else "none", span=found.span)
    return Network("filtered", tuple(sorted(set(allowed))), found.span)


def _http(found: Found) -> HttpCheck | None:
    if isinstance(found.value, str):
        return HttpCheck(found.value)
    path = found.get("path")
    if path is None:
        return None
    return HttpCheck(path, found.get("status", 200), found.get("body"), found.get("method", "GET"))


def _many(found: Found, key: str) -> tuple[str, ...]:
    """The values of a key that takes one text or a list."""
    value = found.get(key, ())
    return (value,) if isinstance(value, str) else tuple(item.value for item in value)
