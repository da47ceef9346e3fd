"""What a reader may copy from the documentation works: blocks load, commands parse, links lead somewhere."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import tomllib
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandboxfile.errors import SpecError
from sandboxfile.inputs.recipes import RecipeReader, shipped_directories
from sandboxfile.spec.load import RecipeText, load
from sandboxfile.spec.source import render_issue

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/*/README.md"),
        *ROOT.glob("recipes/*/README.md"),
        *ROOT.glob("benchmarks/*.md"),
    ]
)
FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=fence)\s*$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A fenced block: the page and line it is at, its language, the words after it, its text."""

    page: str
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        content = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(content):
            language, *words = match["info"].split() or [""]
            if language in languages:
                line = content.count("\n", 0, match.start()) + 1
                name = str(page.relative_to(ROOT))
                found.append(Block(name, line, language, tuple(words), match["text"]))
    return found


def commands() -> Iterator[tuple[Block, list[str]]]:
    """The commands of shell blocks: a line's parts between pipes, parentheses and semicolons."""
    for block in blocks("sh", "console"):
        for line in block.text.splitlines():
            if block.language == "console":
                if not line.startswith("$ "):
                    continue
                line = line[2:]
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&()<>")
            lexer.whitespace_split = True
            lexer.commenters = "#"
            part: list[str] = []
            for word in [*lexer, ";"]:
                if set(word) <= set("|;&()<>"):
                    if part:
                        yield block, part
                    part = []
                elif part or not re.fullmatch(r"\w+=\S*", word):
                    part.append(word)


COMMANDS = list(commands())


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_a_yaml_block_is_a_sandboxfile_without_issues(block: Block) -> None:
    text, read_recipe = block.text, RecipeReader(shipped_directories(), ROOT)
    if "recipe" in block.words:
        recipe = RecipeText("recipe", "/recipe", str(block), block.text.encode())
        text, read_recipe = "use: [./recipe]\n", lambda _: recipe
    if not re.search(r"^base:", text, re.MULTILINE):
        text = "base: debian:13\n" + text
    try:
        load(str(block), text.encode(), format="yaml", read_recipe=read_recipe)
    except SpecError as error:
        pytest.fail("\n\n".join(render_issue(issue) for issue in error.issues))


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_a_toml_block_is_toml_and_a_sandboxfile_if_it_has_one(block: Block) -> None:
    document = tomllib.loads(block.text)
    if "sandboxfile" in document.get("tool", {}):
        load(str(block), block.text.encode(), format="pyproject")
    elif "base" in document and isinstance(document["base"], str):
        load(str(block), block.text.encode(), format="toml")


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_a_json_block_is_json_or_json_lines(block: Block) -> None:
    try:
        json.loads(block.text)
    except json.JSONDecodeError:
        for line in block.text.splitlines():
            json.loads(line)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_a_python_block_compiles_and_imports_what_is_there(block: Block) -> None:
    tree = ast.parse(block.text)
    for statement in ast.walk(tree):
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("sandboxfile"):
            module = __import__(statement.module or "", fromlist=["*"])
            for alias in statement.names:
                assert hasattr(module, alias.name), f"{statement.module} has no {alias.name}"


@pytest.mark.parametrize(
    ("block", "words"),
    [(block, words) for block, words in COMMANDS if os.path.basename(words[0]) == "sandboxfile"],
    ids=lambda value: value if isinstance(value, str) else str(value)[:60],
)
def test_a_sandboxfile_command_has_a_verb_and_options_that_exist(block: Block, words: list[str]) -> None:
    from sandboxfile.cli.main import verb_parser
    from sandboxfile.cli.options import DEFAULTS, Parser, add_common, split_at_command, split_at_verb
    from sandboxfile.cli.verbs import find

    before, name, after = split_at_verb(words[1:])
    namespace = Namespace(**DEFAULTS)
    general = Parser(None)
    add_common(general)
    general.parse(before, namespace)
    verb = find(name or "")
    assert verb is not None, f"{block}: no verb {name}"
    own, command = split_at_command(after)
    assert command is None or verb.command, f"{block}: `{name}` takes no command"
    verb_parser(verb).parse(own, namespace)


@pytest.mark.parametrize(
    ("block", "path"),
    sorted(
        {
            (str(block), word)
            for block, words in COMMANDS
            for word in words
            if word.startswith(("scripts/", "benchmarks/", "examples/", ".ci/"))
        }
    ),
)
def test_a_path_in_a_command_exists(block: str, path: str) -> None:
    target = ROOT / path
    assert target.exists(), block
    assert path.endswith(".py") or target.is_dir() or os.access(target, os.X_OK), f"{path} cannot be executed"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []
