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
    from sandboxfile.api import AsyncClient, BuildResult, Project, SnapshotInfo
    from sandboxfile.cli.loop import Signals

Work = Callable[["AsyncClient"], Awaitable[int]]


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

    def client(self) -> AsyncClient:
        """A client for the store and engine that the options name."""
        from sandboxfile import api

        home = Path(self.args.home).absolute() if self.args.home else None
        vendor = Path(self.args.vendor).absolute() if self.args.vendor else None
        return api.AsyncClient(
            home=home,
            engine=self.args.engine,
            reporter=self.progress,
            runtime=self.args.runtime,
            vendor=vendor,
        )

    def load(self, client: AsyncClient) -> Project:
        """The Sandboxfile that the options name."""
        return client.load(self._file, params=self._params)

    def unchanged(self, client: AsyncClient) -> BuildResult | None:
        """The result of a build that would find nothing to do, None when that takes more than a look."""
        return client.unchanged(self._file, params=self._params)

    def run(self, work: Work, *, client: AsyncClient | None = None) -> int:
        """Run work with a client. The client is closed and the progress taken away, whatever happens."""
        from sandboxfile.cli.loop import run_until_done

        async def session() -> int:
            async with client or self.client() as opened:
                return await work(opened)

        try:
            return run_until_done(session(), self.signals)
        finally:
            self.progress.close()

    async def target(self, client: AsyncClient, target: str) -> SnapshotInfo:
        """The snapshot that TARGET stands for; `.` builds this project's if need be."""
        if target != ".":
            return await client.resolve_snapshot(target)
        built = self.unchanged(client)
        if built is None:
            built = await client.build(self.load(client), locked=self.args.locked, offline=self.args.offline)
        return client.snapshot(built.slug)

    @property
    def _file(self) -> Path | None:
        return Path(self.args.file) if self.args.file else None

    @property
    def _params(self) -> dict[str, str]:
        return dict(assignment(text, "--param") for text in self.args.param)

    def _give_terminal_back(self) -> None:
        from sandboxfile.cli.terminal import restore

        self.progress.close()
        restore()
