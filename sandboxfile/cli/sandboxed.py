"""The options of a command in a sandbox, and the command they make with a snapshot's configuration."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser, duration
from sandboxfile.core.environment import run_environment
from sandboxfile.engine.base import Command
from sandboxfile.errors import UsageError

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient
    from sandboxfile.engine.base import Sandbox

TARGET = "a slug, a name (its newest snapshot), or `.` (the default): this project's, built if needed"
RUNNING = f"{TARGET}; or the id of a detached sandbox, for one that runs already"
SHELL = ("/bin/sh", "-c", "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi")
"""bash where there is one, else sh. Not a login shell: /etc/profile would throw PATH away."""
SANDBOX_DEFAULTS: dict[str, object] = {
    "network": None,
    "env": [],
    "user": None,
    "workdir": None,
    "timeout": None,
}


def add_target(parser: Parser, text: str = TARGET) -> None:
    """Add the optional TARGET."""
    parser.add_argument("target", metavar="TARGET", nargs="?", default=".", help=text)


def add_sandbox_options(parser: Parser) -> None:
    """Add what can be said about a command in a sandbox. Without them the snapshot's own values hold."""
    group = parser.add_argument_group("sandbox options")
    add = group.add_argument
    add(
        "--network",
        dest="network",
        action="store_const",
        const="full",
        help="let the sandbox use the network",
    )
    add("--no-network", dest="network", action="store_const", const="none", help="take the network away")
    add(
        "--env", metavar="K[=V]", action="append", help="set a variable, or pass on the caller's (repeatable)"
    )
    add("--user", metavar="USER", help="run as this user: a name, a number, or user:group")
    add("--workdir", metavar="DIR", help="start in this directory")
    add(
        "--timeout", metavar="TIME", type=duration, help="stop the command after this time, such as 90s or 5m"
    )
    parser.set_defaults(**SANDBOX_DEFAULTS)


@asynccontextmanager
async def target_sandbox(
    invocation: Invocation, client: AsyncClient
) -> AsyncIterator[tuple[Sandbox, Mapping[str, object]]]:
    """The sandbox that TARGET stands for and its configuration: a fresh one, which ends afterwards, or a
    detached one by its id, which goes on."""
    args = invocation.args
    if not is_sandbox(args.target):
        snapshot = await invocation.target(client, args.target)
        sandbox = await client.start(snapshot, network=args.network)
        try:
            yield sandbox, snapshot.config
        finally:
            await sandbox.close()
        return
    if args.network is not None:
        raise UsageError("the network of a sandbox that runs cannot be changed")
    _, found = await client.sandboxes.reach(args.target)
    try:
        about = found.about
        config = {**about["config"], "env": found.variables, "network": about["options"]["network"]}
        yield found, config
    finally:
        await found.leave()


def is_sandbox(target: str) -> bool:
    """Whether TARGET is a sandbox's id: no slug has that character."""
    return target.startswith("sbx_")


def sandbox_command(argv: tuple[str, ...], args: Namespace, config: Mapping[str, object]) -> Command:
    """The command that argv is in a sandbox with a snapshot's configuration and the options' changes."""
    user = args.user or _text(config, "user", "root")
    return Command(
        argv=argv,
        env={**run_environment(_texts(config.get("env")), user=user), **_variables(args.env)},
        cwd=args.workdir or _text(config, "workdir", "/"),
        user=user,
        network=args.network or _text(config, "network", "none"),
        timeout=args.timeout,
    )


def _variables(words: list[str]) -> dict[str, str]:
    variables = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise UsageError(
                f"`--env {word}` names no variable", hint="write NAME=VALUE, or NAME to pass yours on"
            )
        if equals:
            variables[name] = value
        elif name in os.environ:
            variables[name] = os.environ[name]
        else:
            raise UsageError(f"`--env {name}` passes on a variable that is not set here")
    return variables


def _texts(value: object) -> dict[str, str]:
    """A mapping of texts out of a configuration, which is JSON."""
    return {str(name): str(text) for name, text in value.items()} if isinstance(value, Mapping) else {}


def _text(config: Mapping[str, object], name: str, default: str) -> str:
    value = config.get(name)
    return value if isinstance(value, str) and value else default
