"""One run of the program: its arguments, its console, and the client that does the work."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxfile.cli.console import Console
from sandboxfile.cli.options import assignment
from sandboxfile.cli.progress import Progress, make_progress
from sandboxfile.cli.verbs import Verb

if TYPE_CHECKING:
    from sandboxfile.api import Client, Project, SnapshotInfo
    from sandboxfile.cli.loop import Signals

Work = Callable[["Client"], Awaitable[int]]


class Invocation:
    """What a verb is given.

    command: the words after `--`, None when there is no `--`
    """

    def __init__(self, verb: Verb, args: Namespace, console: Console, command: list[str] | None) -> None:
        self.verb = verb
        self.args = args
        self.console = console
        self.command = command
        self.progress: Progress = make_progress(args.progress, console, verbose=args.verbose > 0)
        self._signals: Signals | None = None

    @property
    def signals(self) -> Signals:
        """What happens on signals while `run` runs."""
        if self._signals is None:
            from sandboxfile.cli.loop import Signals

            self._signals = Signals(self._give_terminal_back)
        return self._signals

    def client(self) -> Client:
        """A client for the store and engine that the options name."""
        from sandboxfile import api

        home = Path(self.args.home).absolute() if self.args.home else None
        return api.Client(home=home, engine=self.args.engine, reporter=self.progress)

    def load(self, client: Client) -> Project:
        """The Sandboxfile that the options name."""
        params = dict(assignment(text, "--param") for text in self.args.param)
        file = Path(self.args.file) if self.args.file else None
        return client.load(file, params=params)

    def run(self, work: Work) -> int:
        """Run work with a client. The client is closed and the progress taken away, whatever happens."""
        from sandboxfile.cli.loop import run_until_done

        async def session() -> int:
            async with self.client() as client:
                return await work(client)

        try:
            return run_until_done(session(), self.signals)
        finally:
            self.progress.close()

    async def target(self, client: Client, target: str) -> SnapshotInfo:
        """The snapshot that TARGET stands for; `.` builds this project's if need be."""
        if target != ".":
            return await client.resolve_snapshot(target)
        project = self.load(client)
        built = await client.build(project, locked=self.args.locked, offline=self.args.offline)
        return client.snapshot(built.slug)

    def _give_terminal_back(self) -> None:
        from sandboxfile.cli.terminal import restore

        self.progress.close()
        restore()
