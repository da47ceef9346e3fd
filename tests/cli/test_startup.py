"""What is not needed is not imported: counted by modules, not by a clock."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import sandboxfile

ROOT = Path(__file__).resolve().parents[2]
EXPENSIVE = ("networkx", "httpx", "jinja2", "rich", "asyncio", "yaml", "tomli", "sqlite3", "tempfile")
MOST_FOR_RUN = 270
"""How many modules `run SLUG -- COMMAND` may import, those of the interpreter's own start included."""
SCRIPT = """
import json, sys
from sandboxfile.cli.main import run
code = run(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


def modules_of(*words: str) -> set[str]:
    """The modules that a run has imported."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    code, names = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    return set(names)


@pytest.mark.parametrize("words", [["--help"], ["version"], ["build", "--help"], ["run", "--help"]])
def test_help_and_version_import_nothing_expensive(words: list[str]) -> None:
    modules = modules_of(*words)
    assert modules.isdisjoint(EXPENSIVE)
    assert "sandboxfile.api" not in modules


RUN = """
import dataclasses, json, sys
made, process = [], dataclasses._process_class
def count(cls, *options):
    made.append(cls.__qualname__)
    return process(cls, *options)
dataclasses._process_class = count
import sandboxfile.cli.main
import sandboxfile.cli.commands.run
import sandboxfile.cli.loop
import sandboxfile.cli.attach
import sandboxfile.api
import sandboxfile.store.store
import sandboxfile.sdk.session
import sandboxfile.engines.linux.engine
print(json.dumps([made, sorted(sys.modules)]))
"""
NOT_FOR_RUN = (
    *("ssl", "_ssl", "hashlib", "_hashlib", "random", "secrets", "tempfile", "decimal", "uuid", "hmac"),
    *("networkx", "httpx", "jinja2", "rich", "yaml", "tomli", "packaging", "pathspec"),
    *("sandboxfile.spec", "sandboxfile.plan", "sandboxfile.build.builder", "sandboxfile.build.lockmaker"),
    *("sandboxfile.engines.linux.probe", "sandboxfile.engines.linux.bootstrap", "sandboxfile.sdk.sandboxes"),
)


def imported_for_run() -> tuple[list[str], set[str]]:
    """The dataclasses that are compiled, and the modules that are imported, before `run` boots a sandbox."""
    done = subprocess.run([sys.executable, "-c", RUN], cwd=ROOT, capture_output=True, text=True, check=True)
    made, names = json.loads(done.stdout)
    return made, set(names)


def test_run_imports_what_it_needs_and_compiles_no_class() -> None:
    made, modules = imported_for_run()
    assert made == []
    assert modules.isdisjoint(NOT_FOR_RUN)
    assert len(modules) < MOST_FOR_RUN


def test_streams_with_tls_work_after_the_command_line_was_loaded() -> None:
    script = "import sandboxfile.cli.loop, sys, ssl; assert ssl.create_default_context()"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_only_the_chosen_verb_is_imported() -> None:
    mine = {name for name in modules_of("version") if name.startswith("sandboxfile.cli.commands.")}
    assert mine == {"sandboxfile.cli.commands.version"}


def test_importing_the_package_imports_nothing_of_it() -> None:
    script = "import sys, sandboxfile; print([n for n in sys.modules if n.startswith('sandboxfile.')])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", sandboxfile.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(sandboxfile, name) is not None
    assert name in dir(sandboxfile)


def test_type_checkers_see_the_same_names() -> None:
    stub = ast.parse((ROOT / "sandboxfile" / "__init__.pyi").read_text())
    imported = {
        alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert {*imported, "__version__"} == set(sandboxfile.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = sandboxfile.nonsense


def test_the_version_is_the_distributions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sandboxfile.__version__ == project["version"]
