"""The worked examples of docs/dev/hashing.md are what the code does, to the byte."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from sandboxfile.core.slug import slug_of
from sandboxfile.plan.planner import CHECK_TAG
from sandboxfile.spec.lock import GROUP_TAG

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "dev" / "hashing.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(
    r"^## Example.*?^```python\n(?P<program>.*?)^```\n.*?^```json\n(?P<preimage>[^\n]*)\n```\n"
    r".*?`(?P<digest>sha256:[0-9a-f]{64})`",
    re.DOTALL | re.MULTILINE,
)


def test_the_examples_are_what_the_code_does() -> None:
    names: dict[str, Any] = {}
    examples = list(EXAMPLE.finditer(PAGE))
    assert len(examples) == 3
    for example in examples:
        exec(example["program"], names)
        assert names["preimage"].decode("ascii") == example["preimage"]
        assert names["digest"] == example["digest"]
        assert "sha256:" + hashlib.sha256(example["preimage"].encode()).hexdigest() == example["digest"]
    assert f"`{slug_of('Fun with Python!', names['digest'])}`" in PAGE
    first = examples[0]["preimage"]
    assert f"The preimage is {len(first)} bytes" in PAGE


def test_every_tag_is_listed() -> None:
    from sandboxfile.core.layer import LAYER_TAG, SNAPSHOT_TAG

    for tag in (LAYER_TAG, SNAPSHOT_TAG, CHECK_TAG, GROUP_TAG):
        assert f"| `{tag}` |" in PAGE
