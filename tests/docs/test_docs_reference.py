"""The reference is complete: every key, verb, error, exit code, event, action and dependency is described."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from sandboxfile import errors
from sandboxfile.cli import exits
from sandboxfile.cli.jsonlines import event_record
from sandboxfile.cli.verbs import VERBS
from sandboxfile.core import event
from sandboxfile.plan.model import ActionKind
from sandboxfile.spec.document import DOCUMENT, RECIPE
from sandboxfile.spec.shape import Listing, Names, OneOf, Shape, Table

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SAMPLES: tuple[event.Event, ...] = (
    event.TaskStarted("task", "title"),
    event.TaskProgress("task", 1, 2, "bytes"),
    event.TaskOutput("task", "text"),
    event.TaskFinished("task", event.Outcome.DONE),
    event.Fallback("task", "file", "origin", "reason", "elsewhere"),
    event.Notice("info", "text"),
)


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def code_words(text: str) -> set[str]:
    """What stands in backticks, whole and in words."""
    spans = re.findall(r"`([^`\n]+)`", text)
    return {word for span in spans for word in (span, *re.findall(r"[\w-]+", span))}


def keys_of(shape: Shape | None) -> Iterator[str]:
    """Every key that may stand somewhere in a shape."""
    if isinstance(shape, Table):
        for key in shape.keys:
            yield key.name
            yield from keys_of(key.shape)
    elif isinstance(shape, (Listing, Names)):
        yield from keys_of(shape.item)
    elif isinstance(shape, OneOf):
        for each in (shape.scalar, shape.sequence, shape.mapping, *shape.tables):
            yield from keys_of(each)


@pytest.mark.parametrize("table", [DOCUMENT, RECIPE], ids=["Sandboxfile", "recipe"])
def test_every_key_is_described(table: Table) -> None:
    described = code_words(page("reference/sandboxfile.md"))
    assert set(keys_of(table)) - described == set()


def test_every_top_level_key_has_a_section() -> None:
    headings = " ".join(re.findall(r"^## (.+)$", page("reference/sandboxfile.md"), re.MULTILINE))
    assert [key.name for key in DOCUMENT.keys if key.name not in re.split(r"[ ,]+", headings)] == []


def test_every_verb_is_described() -> None:
    text = page("reference/cli.md")
    assert [verb.name for verb in VERBS if f"sandboxfile {verb.name}" not in text] == []


def test_every_error_is_described() -> None:
    kinds = [
        name
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, errors.SandboxfileError)
    ]
    described = code_words(page("reference/glossary.md"))
    assert [name for name in kinds if name not in described] == []


def test_every_exit_code_is_described() -> None:
    text = page("reference/exit-codes.md")
    assert [code for code, _ in exits.MEANINGS if not re.search(rf"\b{code}\b", text)] == []


def test_every_event_is_described_with_its_fields() -> None:
    text = page("reference/events.md")
    described = code_words(text)
    for kind in get_args(event.Event):
        assert kind.__name__ in described
        assert {each.name for each in fields(kind)} - described == set()
    assert {outcome.value for outcome in event.Outcome} - described == set()


def test_the_json_form_of_every_event_is_shown() -> None:
    text = page("reference/events.md")
    shown = [str(event_record(sample)["event"]) for sample in SAMPLES]
    assert {type(sample) for sample in SAMPLES} == set(get_args(event.Event))
    assert [name for name in shown if f'"event": "{name}"' not in text] == []


def test_every_action_is_described() -> None:
    described = code_words(page("reference/glossary.md"))
    assert [kind.value for kind in ActionKind if kind.value not in described] == []


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = [re.split(r"[<>=!~\[; ]", each)[0] for each in wanted]
    described = code_words(page("dev/dependencies.md"))
    assert [name for name in names if name.lower() not in {each.lower() for each in described}] == []


def test_every_package_has_its_place_in_the_architecture() -> None:
    parts = [
        path.stem
        for path in sorted((ROOT / "sandboxfile").iterdir())
        if (path / "__init__.py").exists() or (path.suffix == ".py" and not path.name.startswith("__"))
    ]
    described = code_words(page("dev/architecture.md")) | set(re.findall(r"\w+", page("dev/architecture.md")))
    assert [part for part in parts if part not in described] == []


def test_the_index_links_to_every_page() -> None:
    text = page("README.md")
    pages = [str(path.relative_to(DOCS)) for path in DOCS.glob("**/*.md") if path != DOCS / "README.md"]
    assert [name for name in sorted(pages) if f"]({name})" not in text] == []


def test_the_readme_opens_with_the_two_commands() -> None:
    opening = (ROOT / "README.md").read_text(encoding="utf-8")[:500]
    assert "scripts/demo" in opening
    assert "scripts/test" in opening
