"""The examples of the reference run as they stand, one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sdk_world import World, make_base

import sandboxfile

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "sdk.md"
DETACHED = re.compile(r"^```python detached\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_examples_of_the_reference_run(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = sandboxfile.Client(home=memory.home, engine="memory")
    client._portal.run(lambda: make_base(client._inner, "fun-with-python"))
    monkeypatch.setattr(sandboxfile, "Client", lambda: client)
    names: dict[str, Any] = {}
    text = PAGE.read_text(encoding="utf-8")
    found = list(BLOCK.finditer(text))
    assert len(found) > 8
    try:
        for match in found:
            line = text.count("\n", 0, match.start(1))
            code = compile("\n" * line + match[1], str(PAGE), "exec")
            exec(code, names)
    finally:
        client.close()


@pytest.mark.host
@pytest.mark.network
def test_the_examples_of_detached_sandboxes_run(shared_home: Path, base_project: Path) -> None:
    # The memory engine keeps no sandbox without its client.
    text = PAGE.read_text(encoding="utf-8")
    found = list(DETACHED.finditer(text))
    assert len(found) == 2
    with sandboxfile.Client(home=shared_home) as client:
        names: dict[str, Any] = {"client": client}
        for match in found:
            line = text.count("\n", 0, match.start(1))
            exec(compile("\n" * line + match[1].replace("fun-with-python", "base"), str(PAGE), "exec"), names)
