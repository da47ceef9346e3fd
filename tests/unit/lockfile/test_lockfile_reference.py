"""The examples of the reference pages are what they say."""

from __future__ import annotations

import re
from pathlib import Path

from sandboxfile.inputs.settings import _KNOWN, load_settings
from sandboxfile.spec.lockfile import dump, load
from sandboxfile.spec.staleness import valid_prefix

REFERENCE = Path(__file__).parents[3] / "docs/reference"


def block(page: str) -> str:
    match = re.search(r"```toml\n(.*?)```", (REFERENCE / page).read_text("utf-8"), re.DOTALL)
    assert match is not None
    return match[1]


def test_the_lock_of_the_reference_is_one_that_sandboxfile_would_write() -> None:
    lock = load(block("lockfile.md"))
    assert dump(lock) == block("lockfile.md")
    assert valid_prefix(lock) == len(lock.groups) == 2


def test_the_settings_of_the_reference_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(block("settings.md"))
    settings = load_settings({"HOME": "/home/me", "SANDBOXFILE_CONFIG": str(tmp_path / "config.toml")})
    assert settings.apt_mirrors["debian"] == ("https://mirror.example/debian",)
    assert settings.home == Path("/home/me/.local/share/sandboxfile")
    assert settings.host_ca


def test_every_setting_is_in_the_reference_and_in_its_example() -> None:
    page = (REFERENCE / "settings.md").read_text("utf-8")
    for table, keys in _KNOWN.items():
        for key in keys - {"apt", "pip", "mirrors"}:
            name = f"{table}.{key}".lstrip(".")
            assert f"| `{name}` |" in page, name
            assert re.search(rf"^{key} = ", block("settings.md"), re.MULTILINE), name
