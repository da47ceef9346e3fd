"""`sandboxfile init`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from sandboxfile.cli.exits import DONE
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.errors import UsageError

DESCRIPTION = """Write a commented Sandboxfile to start from into DIR (made if missing; default:
here), and print its path. A Sandboxfile that is there already is kept unless --force is given."""
NAMES = ("Sandboxfile", "Sandboxfile.yaml", "Sandboxfile.toml")


def configure(parser: Parser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("dir", metavar="DIR", nargs="?", default=".", help="the directory to write into")
    parser.add_argument(
        "--force", action="store_true", default=False, help="replace the Sandboxfile that is there"
    )


def execute(invocation: Invocation) -> int:
    """Write the starter."""
    from sandboxfile.spec.starter import starter

    args, console = invocation.args, invocation.console
    if args.file is not None:
        raise UsageError("`init` takes a directory, not `--file`", hint="write `sandboxfile init DIR`")
    directory = Path(args.dir)
    there = next((directory / name for name in NAMES if os.path.lexists(directory / name)), None)
    if there is not None and not args.force:
        raise _exists(there)
    if there is not None and there.name != NAMES[0]:
        raise UsageError(
            f"`{there}` would be read instead of a new `{NAMES[0]}`", hint="move it away, or edit it"
        )
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / NAMES[0]
    _write(path, starter(directory.resolve().name or "env"), replace=args.force)
    console.document({"file": str(path)}) if console.json else console.data(str(path))
    where = "" if args.dir == "." else f" -C {args.dir}"
    console.say(f"wrote {path}; `sandboxfile{where} build` builds it")
    return DONE


def _exists(path: Path) -> UsageError:
    return UsageError(f"there is a `{path}` already", hint="`--force` replaces it")


def _write(path: Path, text: str, *, replace: bool) -> None:
    """Write the file whole or not at all."""
    descriptor, beside = tempfile.mkstemp(prefix=".Sandboxfile-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(beside, 0o666 & ~mask)
        if replace:
            os.replace(beside, path)
        else:
            try:
                os.link(beside, path)  # unlike rename, it refuses to replace one made meanwhile
            except FileExistsError:
                raise _exists(path) from None
    finally:
        if os.path.lexists(beside):
            os.unlink(beside)
