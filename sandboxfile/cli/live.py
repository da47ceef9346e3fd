"""Progress as a live tree on a terminal: what runs now, how long, how far, and the end of its output.

A finished task leaves one line above the tree. Nothing is drawn for work that is over at once, so that a
build with nothing to do neither flickers nor pays for importing rich.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from sandboxfile.cli.console import Console
from sandboxfile.cli.lines import fallback_line, finished_line, notice_line
from sandboxfile.cli.progress import Clock, Progress
from sandboxfile.core.event import Event, Fallback, Notice, Outcome, TaskFinished, TaskStarted
from sandboxfile.core.units import seconds_text

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

DELAY = 0.15
"""Seconds that something must be running before the tree appears."""
PERIOD = 0.1
"""Seconds between two drawings."""
TAIL = 5
"""Lines of a running step's output that are shown."""
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
STYLES = {
    Outcome.DONE: "green",
    Outcome.REUSED: "cyan",
    Outcome.FAILED: "bold red",
    Outcome.CANCELLED: "yellow",
}


class LiveProgress(Progress):
    """Draws the board with rich, ten times a second, from a thread of its own.

    Everything that touches rich happens under one lock, so the tree is never drawn into another line.
    """

    def __init__(self, console: Console, *, verbose: bool = False, clock: Clock = time.monotonic) -> None:
        super().__init__()
        self._console = console
        self._verbose = verbose
        self._clock = clock
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._gone: threading.Event | None = None

    def emit(self, event: Event) -> None:
        """Take an event in; a finished task and a notice leave a line above the tree."""
        with self._lock:
            now = self._clock()
            running, lines = self.board.note(event, now)
            if self._verbose and running is not None:
                for line in lines:
                    self._leave(f"{running.label} | {line}", "dim")
            match event:
                case TaskStarted() if self._gone is None:
                    self._gone = threading.Event()
                    threading.Thread(target=self._draw, args=(self._gone,), daemon=True).start()
                case TaskFinished(_, outcome, detail) if running is not None:
                    self._leave(finished_line(running, outcome, detail, now), STYLES[outcome])
                case Fallback() if self.board.is_new(event):
                    self._leave(fallback_line(event), "")
                case Notice(level, text):
                    self._leave(notice_line(level, text), "yellow" if level == "warning" else "")
                case _:
                    pass
            if not self.board.running:
                self.close()

    def close(self) -> None:
        """Take the tree away. The cursor and the terminal are as they were."""
        with self._lock:
            gone, self._gone = self._gone, None
            live, self._live = self._live, None
            if gone is not None:
                gone.set()
            if live is not None:
                with suppress(OSError, ValueError):  # the terminal may be gone
                    live.stop()

    def tree(self) -> list[Text]:
        """What is drawn now, one line each."""
        from rich.text import Text

        now = self._clock()
        rows: list[Text] = []
        for running in self.board.tree():
            indent = "  " * self.board.depth(running)
            row = Text(no_wrap=True, overflow="ellipsis")
            row.append(f"{indent}{SPINNER[int(now * 10) % len(SPINNER)]} ", "cyan")
            row.append(running.label, "bold")
            row.append(f" {seconds_text(now - running.started)}", "dim")
            amount = running.amount(now)
            row.append(f" {amount}" if amount else "", "cyan")
            # The longest part comes last: it is what a narrow terminal cuts off.
            row.append(f" {running.title}" if running.title != running.label else "")
            rows.append(row)
            rows += [
                Text(f"{indent}    {line}", "dim", no_wrap=True, overflow="ellipsis")
                for line in running.tail(TAIL)
            ]
        return rows

    def _draw(self, gone: threading.Event) -> None:
        if gone.wait(DELAY):
            return
        live = self._make_live()
        try:
            with self._lock:
                if gone.is_set():
                    return
                self._live = live
                live.start()
            while not gone.wait(PERIOD):
                with self._lock:
                    if not gone.is_set():
                        live.refresh()
        except (OSError, ValueError):
            pass  # the terminal is gone; the work goes on without a tree

    def _make_live(self) -> Live:
        from rich.console import Console as RichConsole
        from rich.console import Group
        from rich.live import Live

        console = RichConsole(
            file=self._console.err,
            force_terminal=True,
            no_color=not self._console.colour_err,
            highlight=False,
            markup=False,
            emoji=False,
        )
        return Live(
            get_renderable=lambda: Group(*self.tree()),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )

    def _leave(self, line: str, style: str) -> None:
        with suppress(OSError, ValueError):  # a reporter never fails the work: the terminal may be gone
            if self._live is not None:
                from rich.text import Text

                self._live.console.print(Text(line, style), soft_wrap=True)
            else:
                self._console.err.write(line + "\n")
                self._console.err.flush()
