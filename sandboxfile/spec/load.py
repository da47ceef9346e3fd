"""A Sandboxfile's text to its validated document: pure, and every problem at once."""

from __future__ import annotations

from collections.abc import Mapping

from sandboxfile.errors import Issue, Source, Span, SpecError
from sandboxfile.spec import node
from sandboxfile.spec.assemble import fragment_of
from sandboxfile.spec.decode import Format, decode, format_of
from sandboxfile.spec.document import DOCUMENT
from sandboxfile.spec.fragment import Fragment, merge
from sandboxfile.spec.model import (
    Apt,
    Network,
    ParamValue,
    Pip,
    PipRequest,
    RequirementsFile,
    Resources,
    Sandboxfile,
    ScratchRequest,
)
from sandboxfile.spec.params import Given
from sandboxfile.spec.recipe import Expander, ReadRecipe, RecipeRef, RecipeText, read_document
from sandboxfile.spec.shape import Reader

__all__ = ["Format", "ReadRecipe", "RecipeRef", "RecipeText", "format_of", "load"]


def load(
    source_name: str,
    data: bytes,
    *,
    format: Format | None = None,  # noqa: A002
    params: Mapping[str, str] | None = None,
    default_name: str = "env",
    read_recipe: ReadRecipe | None = None,
) -> Sandboxfile:
    """The document that a file's bytes stand for.

    source_name:  the file's name, shown in messages
    format:       `yaml`, `toml` or `pyproject`; None is what the name says
    params:       values for its parameters as text, `--param`'s
    default_name: the environment's name when the file gives none (its directory's name)
    read_recipe:  finds and reads the recipes of `use`

    Raises SpecError with every issue found, in the order of their places.
    """
    issues: list[Issue] = []
    try:
        source, root = decode(source_name, data, format or format_of(source_name), issues)
    except SpecError as error:
        raise SpecError(_ordered(error.issues)) from None
    if not isinstance(root, node.Mapping):
        issues.append(_no_document(source, root))
        raise SpecError(_ordered(issues))
    reader = Reader(issues)
    given = {name: Given(value) for name, value in (params or {}).items()}
    found, values = read_document(
        DOCUMENT,
        root,
        reader,
        given,
        owner="Sandboxfile",
        place=None,
        remedy="give it with `--param NAME=VALUE`",
    )
    expander = Expander(read_recipe, issues)
    expander.expand(found.value.get("use"))
    merged = merge([*expander.fragments, fragment_of(found, reader)], reader)
    _check(merged, reader)
    if issues:
        raise SpecError(_ordered(issues))
    known = {name: value for name, value in values.items() if value is not None}
    return _sandboxfile(merged, default_name, known, expander)


def _no_document(source: Source, root: node.Node | None) -> Issue:
    if root is None:
        return Issue(
            "missing-key", "the file is empty", Span(source, 1, 1), hint="begin with `base: debian:13`"
        )
    return Issue(
        "wrong-type", "a Sandboxfile is a mapping of keys", root.span, hint="begin with `base: debian:13`"
    )


def _check(merged: Fragment, reader: Reader) -> None:
    """What only the whole can tell."""
    secrets = merged.maps.get("secrets", {})
    for use in merged.secret_uses:
        if use.value not in secrets:
            hint = f"add `secrets: [{use.value}]` to the Sandboxfile"
            reader.issue("undeclared-secret", f"no secret is called `{use.value}`", use.span, use.path, hint)
    start = merged.one("start")
    for found in merged.lists.get("verify", ()):
        if (
            found.value.http is not None
            and (start is None or start.port is None)
            and "start" not in _bad(reader)
        ):
            hint = "add `start: {command: …, port: …}`"
            message = "an HTTP check needs `start` with a `port`"
            reader.issue("missing-key", message, found.value.span, found.path, hint)
    if isinstance(merged.one("base"), ScratchRequest):
        for section in ("apt", "pip"):
            if merged.lists.get(f"{section}.packages"):
                message = f"`{section}` cannot install on `scratch`, which is empty"
                hint = "use a base such as `debian:13`"
                reader.issue("bad-value", message, merged.span(section), section, hint)


def _bad(reader: Reader) -> set[str]:
    """The top-level keys that something was already said about."""
    return {issue.path.partition(".")[0].partition("[")[0] for issue in reader.issues}


def _sandboxfile(
    merged: Fragment, default_name: str, params: Mapping[str, ParamValue], expander: Expander
) -> Sandboxfile:
    entries = merged.all("pip.packages")
    apt = Apt(
        packages=merged.all("apt.packages"),
        sources=tuple(merged.named("apt.sources").values()),
        recommends=merged.one("apt.recommends", False),
        span=merged.span("apt"),
    )
    pip = Pip(
        requests=tuple(entry for entry in entries if isinstance(entry, PipRequest)),
        files=tuple(entry for entry in entries if isinstance(entry, RequirementsFile)),
        index_url=merged.one("pip.index-url"),
        extra_index_urls=merged.all("pip.extra-index-urls"),
        find_links=merged.all("pip.find-links"),
        constraints=merged.all("pip.constraints"),
        prereleases=merged.one("pip.prereleases", False),
        exclude_newer=merged.one("pip.exclude-newer"),
        build=merged.all("pip.build"),
        venv=merged.one("pip.venv"),
        span=merged.span("pip"),
    )
    return Sandboxfile(
        name=merged.one("name") or default_name or "env",
        base=merged.one("base"),
        apt=apt,
        pip=pip,
        env=merged.named("env"),
        workdir=merged.one("workdir", "/"),
        user=merged.one("user", "root"),
        files=merged.all("files"),
        run=merged.all("run"),
        verify=merged.all("verify"),
        start=merged.one("start"),
        freshness=merged.one("freshness"),
        resources=merged.one("resources", Resources()),
        network=merged.one("network", Network()),
        secrets=tuple(merged.named("secrets").values()),
        labels=merged.named("labels"),
        params=params,
        recipes=tuple(expander.inputs),
    )


def _ordered(issues: tuple[Issue, ...] | list[Issue]) -> tuple[Issue, ...]:
    """Each issue once, by file in the order they came up, then by place; those without a place last."""
    sources: dict[str, int] = {}
    for issue in issues:
        if issue.span is not None:
            sources.setdefault(issue.span.source.name, len(sources))

    def place(issue: Issue) -> tuple[int, int, int]:
        if issue.span is None:
            return (len(sources), 0, 0)
        return (sources[issue.span.source.name], issue.span.line, issue.span.column)

    distinct = {(place(issue), issue.message): issue for issue in reversed(issues)}
    in_order = list(distinct.values())[::-1]
    return tuple(sorted(in_order, key=place))
