"""`sandboxfile lock`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxfile.cli.exits import DONE
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.errors import UsageError

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient
    from sandboxfile.spec.lock import Lockfile

DESCRIPTION = """Pin everything the Sandboxfile asks for in `sandboxfile.lock`: the base, apt
packages, Python distributions. What is locked already stays unless --update says otherwise.
Prints what changed, one line each. --squash writes the package groups as one: the next build
makes its layers anew."""


def configure(parser: Parser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("--check", action="store_true", default=False, help="change nothing; exit 4 when the lock is stale")
    add(
        "--update",
        metavar="NAME",
        nargs="*",
        default=None,
        help="renew these packages, or everything when none is named",
    )
    add(
        "--security",
        action="store_true",
        default=False,
        help="with --update: only what has a security update, and nothing else",
    )
    add(
        "--squash",
        action="store_true",
        default=False,
        help="write all package groups as one, with the same packages; nothing is solved",
    )
    add(
        "--refresh",
        action="store_true",
        default=False,
        help="ask the archives and indexes again, however recent",
    )
    add(
        "--accept-older",
        action="store_true",
        default=False,
        help="take an archive's index though a newer one was seen before",
    )
    add(
        "--pylock",
        action="store_true",
        default=False,
        help="print the Python distributions as PEP 751 (pylock.toml)",
    )


def execute(invocation: Invocation) -> int:
    """Make or check the lock."""
    args, console = invocation.args, invocation.console
    check = args.check or args.locked
    if check and (args.update is not None or args.refresh or args.accept_older):
        raise UsageError(
            "`--check` and `--locked` change nothing, but `--update`, `--refresh` and `--accept-older` do"
        )
    if args.security and args.update is None:
        raise UsageError("`--security` says which packages `--update` renews", hint="add `--update`")
    if args.squash and (check or args.update is not None or args.refresh or args.accept_older):
        raise UsageError("`--squash` moves no package: it goes with no other way to make or check a lock")
    if args.pylock and console.json:
        raise UsageError("`--pylock` prints TOML: it cannot be combined with `--json`")

    async def work(client: AsyncClient) -> int:
        project = invocation.load(client)
        if check:
            client.check_lock(project)
            console.say(f"{project.lock_path.name} answers {project.file.name}")
            if console.json:
                console.document({"lock": str(project.lock_path), "changes": []})
            if not args.pylock:
                return DONE
        lock, changes = await client.lock(
            project,
            update=args.update,
            security=args.security,
            refresh=args.refresh,
            offline=args.offline or check,
            accept_older=args.accept_older,
            squash=args.squash,
        )
        invocation.progress.close()
        if args.pylock:
            console.data(_pylock(lock))
        elif console.json:
            console.document({"lock": str(project.lock_path), "changes": list(changes)})
        elif changes:
            console.data("\n".join(changes))
        said = "wrote" if changes else "nothing changed in"
        console.say(f"{said} {project.lock_path.name}")
        return DONE

    return invocation.run(work)


def _pylock(lock: Lockfile) -> str:
    from sandboxfile.spec.lockfile import pylock

    return pylock(lock)
