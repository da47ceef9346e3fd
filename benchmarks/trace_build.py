"""A picture of one cold build: which tasks ran when, and which program each processor ran."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from job import BASE_ONLY, Job, write_context

_INTERVAL = 0.02
_WIDTH, _LEFT, _RIGHT, _ROW = 1000, 230, 50, 18
_COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e")
_OTHER = "#b8b8b8"


@dataclass
class Recording:
    """What happened, in seconds from the start.

    tasks: title, begin and end of each task
    cores: time and program of each sample, by processor
    """

    seconds: float
    tasks: list[tuple[str, float, float]] = field(default_factory=list)
    cores: dict[int, list[tuple[float, str]]] = field(default_factory=dict)


def trace(script: Path, directory: Path, picture: Path) -> None:
    """Draw a cold build of the seed's environment, with its base built beforehand, in a fresh store."""
    home, project, base = directory / "store", directory / "project", directory / "base"
    base.mkdir(parents=True)
    (base / "Sandboxfile").write_text(BASE_ONLY)
    write_context(project)
    (project / "Sandboxfile").write_text(Job().sandboxfile())
    command = [script, "--home", home, "-C"]
    subprocess.run([*command, base, "-q", "build"], check=True, stdout=subprocess.DEVNULL)
    picture.write_text(draw(record([*command, project, "build", "--progress=json"])))


def record(command: list[str | Path]) -> Recording:
    """Run a build that tells its progress as JSON, and look at the processors meanwhile."""
    over = threading.Event()
    cores: dict[int, list[tuple[float, str]]] = {}
    start = time.monotonic()

    def look() -> None:
        while not over.wait(_INTERVAL):
            now = time.monotonic() - start
            for core, name in running().items():
                cores.setdefault(core, []).append((now, name))

    watch = threading.Thread(target=look)
    watch.start()
    begun: dict[str, tuple[str, float]] = {}
    tasks = []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            now = time.monotonic() - start
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("event") == "task-started":
                begun[event["task"]] = (event["title"], now)
            elif event.get("event") == "task-finished" and event["task"] in begun:
                title, began = begun.pop(event["task"])
                tasks.append((title, began, now))
    finally:
        code = process.wait()
        over.set()
        watch.join()
    if code:
        raise subprocess.CalledProcessError(code, [str(word) for word in command])
    return Recording(time.monotonic() - start, sorted(tasks, key=lambda task: task[1]), cores)


def running() -> dict[int, str]:
    """The program that each processor runs, as far as one is running; never this one."""
    found: dict[int, str] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            for thread in os.scandir(f"/proc/{entry.name}/task"):
                text = Path(f"{thread.path}/stat").read_text()
                name, _, rest = text.partition("(")[2].rpartition(")")
                words = rest.split()
                if words[0] == "R":
                    # proc_pid_stat(5): field 39 is the processor; the state is field 3
                    found.setdefault(int(words[36]), name)
        except OSError:
            continue
    return found


def draw(recording: Recording) -> str:
    """The picture, as SVG: a row for each task, below a band for each processor."""
    scale = (_WIDTH - _LEFT - _RIGHT) / recording.seconds
    common = Counter(name for samples in recording.cores.values() for _, name in samples).most_common()
    colours = {name: _COLOURS[n] for n, (name, _) in enumerate(common[: len(_COLOURS)])}
    band = 26
    bottom = 30 + _ROW * len(recording.tasks) + 12
    height = bottom + band * len(recording.cores) + 64
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'font-family="sans-serif" font-size="11" aria-label="a cold build by task and processor">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for second in range(int(recording.seconds) + 1):
        x = _LEFT + second * scale
        parts.append(f'<line x1="{x:.1f}" y1="20" x2="{x:.1f}" y2="{height - 40}" stroke="#eee"/>')
        if second % (1 if recording.seconds < 20 else 5) == 0:
            parts.append(_text(x, 14, f"{second} s", "middle"))
    for number, (title, begin, end) in enumerate(recording.tasks):
        y = 26 + _ROW * number
        parts.append(_text(_LEFT - 6, y + 11, title if len(title) < 32 else title[:30] + "…", "end"))
        width = max((end - begin) * scale, 1)
        parts.append(
            f'<rect x="{_LEFT + begin * scale:.1f}" y="{y}" width="{width:.1f}" height="13" fill="#4269d0"/>'
        )
        parts.append(_text(_LEFT + end * scale + 4, y + 11, f"{end - begin:.1f} s", "start"))
    for row, core in enumerate(sorted(recording.cores)):
        y = bottom + band * row
        parts.append(_text(_LEFT - 6, y + 14, f"processor {core}", "end"))
        for at, name in recording.cores[core]:
            x, width = _LEFT + at * scale, _INTERVAL * 1.5 * scale
            colour = colours.get(name, _OTHER)
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.2f}" height="20" fill="{colour}"/>')
    x, y = float(_LEFT), bottom + band * len(recording.cores) + 10
    for name, colour in [*colours.items(), ("others", _OTHER)]:
        if x + 24 + 7 * len(name) > _WIDTH:
            x, y = float(_LEFT), y + 16
        parts.append(f'<rect x="{x:.1f}" y="{y}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(x + 14, y + 9, name, "start"))
        x += 28 + 7 * len(name)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333">{escape(text)}</text>'
