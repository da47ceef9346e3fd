"""What a Sandboxfile asks a lock for, in the one canonical way to write it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sandboxfile.spec.lock import Requests
from sandboxfile.spec.model import (
    AptSource,
    BaseRequest,
    DebianRequest,
    Pip,
    PipRequest,
    RootfsRequest,
    Sandboxfile,
    SnapshotRequest,
)


def requests_of(
    sandboxfile: Sandboxfile, *, pip_requests: tuple[PipRequest, ...], inputs: Mapping[str, str]
) -> Requests:
    """The requests that a lock must answer.

    pip_requests: every requirement, those of `-r` files among them
    inputs:       digest of each file that shapes the answer (constraints, requirements, keys), by path
    """
    return Requests(
        base=base_text(sandboxfile.base),
        apt=frozenset(str(request) for request in sandboxfile.apt.packages),
        pip=frozenset(request.requirement for request in pip_requests),
        apt_options=apt_options(sandboxfile),
        pip_options=pip_options(sandboxfile.pip),
        recipes={recipe.name: recipe.digest for recipe in sandboxfile.recipes},
        inputs=dict(inputs),
    )


def base_text(base: BaseRequest) -> str:
    """`debian:trixie`, with `snapshot=` and `components=` where given; `rootfs:<sha256>`,
    `snapshot:<slug>`, `scratch`. Where the bytes come from (a mirror, a path) is not part of it."""
    if isinstance(base, DebianRequest):
        options = [f"snapshot={base.snapshot}"] if base.snapshot else []
        if set(base.components) != {"main"}:
            options.append(f"components={','.join(sorted(set(base.components)))}")
        return " ".join([f"debian:{base.suite}", *options])
    if isinstance(base, RootfsRequest):
        return f"rootfs:{base.sha256}"
    return f"snapshot:{base.slug}" if isinstance(base, SnapshotRequest) else "scratch"


def apt_options(sandboxfile: Sandboxfile) -> dict[str, str]:
    """`recommends`, and `source:NAME` for each additional archive."""
    options = {"recommends": _word(sandboxfile.apt.recommends)}
    options |= {f"source:{source.name}": _source(source) for source in sandboxfile.apt.sources}
    return options


def pip_options(pip: Pip) -> dict[str, str]:
    """The options that were given, by their key in the file. What has an order keeps it."""
    options = {
        "index-url": pip.index_url or "",
        "extra-index-urls": _list(pip.extra_index_urls),
        "find-links": _list(pip.find_links),
        "constraints": _list(tuple(sorted(pip.constraints))),
        "prereleases": _word(pip.prereleases) if pip.prereleases else "",
        "exclude-newer": pip.exclude_newer or "",
        "build": _list(tuple(sorted(pip.build))),
        "venv": pip.venv or "",
    }
    return {name: text for name, text in options.items() if text}


def _source(source: AptSource) -> str:
    record = {
        "uris": source.uris,
        "suites": source.suites,
        "components": source.components,
        "signed-by": source.signed_by,
        "architectures": source.architectures,
    }
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def _list(values: tuple[str, ...]) -> str:
    return json.dumps(values, separators=(",", ":")) if values else ""


def _word(value: bool) -> str:
    return "true" if value else "false"
