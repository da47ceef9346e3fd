"""From bytes to a Node tree, whatever the format; every problem found becomes an Issue."""

from __future__ import annotations

from typing import Literal

from sandboxfile.errors import Issue, Source, SpecError
from sandboxfile.spec.node import Locator, Node

Format = Literal["yaml", "toml", "pyproject"]

MAX_BYTES = 1 << 20
"""A Sandboxfile beyond this size is refused before anything looks at it."""

MAX_NODES = 50_000
"""How many values a document may hold, each use of an alias counted with all it stands for."""

MAX_DEPTH = 64
"""How deep values may be nested."""


def format_of(file_name: str) -> Format:
    """The format that a file's name stands for: `pyproject.toml`, any other `.toml`, else YAML."""
    name = file_name.replace("\\", "/").rpartition("/")[2]
    if name == "pyproject.toml":
        return "pyproject"
    return "toml" if name.endswith(".toml") else "yaml"


def decode(name: str, data: bytes, form: Format, issues: list[Issue]) -> tuple[Source, Node | None]:
    """The source and its tree; None where there is none to go on with (the file is empty, or `issues`
    says why). Raises SpecError when no tree can be made at all."""
    source = decode_text(name, data)
    if form == "yaml":
        from sandboxfile.spec.yamltext import compose

        return source, compose(source, issues)
    from sandboxfile.spec.tomltext import compose_toml

    return source, compose_toml(source, issues, table=("tool", "sandboxfile") if form == "pyproject" else ())


def decode_text(name: str, data: bytes) -> Source:
    """The text of UTF-8 bytes, a byte order mark dropped. Raises SpecError."""
    if len(data) > MAX_BYTES:
        raise SpecError((Issue("too-large", f"`{name}` is {len(data)} bytes; the limit is {MAX_BYTES}"),))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError((_not_utf8(name, data, error.start),)) from None
    source = Source(name, text.removeprefix("\ufeff"))
    if "\0" in source.text:
        span = Locator(source).at(source.text.index("\0"))
        raise SpecError((Issue("encoding", "a NUL character has no place in a Sandboxfile", span),))
    return source


def _not_utf8(name: str, data: bytes, offset: int) -> Issue:
    source = Source(name, data.decode("utf-8", errors="replace"))
    before = data[:offset].decode("utf-8")
    return Issue(
        "encoding",
        f"byte 0x{data[offset]:02x} at offset {offset} is not UTF-8",
        Locator(source).at(len(before)),
        hint=_encoding_hint(data),
    )


def _encoding_hint(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "the file looks like UTF-16; save it as UTF-8"
    return "save the file as UTF-8"
