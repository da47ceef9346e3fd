"""The Mandelbrot explorer in a sandbox, seen by a real browser through an exposed port."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxfile import AsyncClient
from tests.e2e.browser import Browser, chromium
from tests.e2e.conftest import Program

pytestmark = [pytest.mark.host, pytest.mark.network]

APP = Path(__file__).parents[2] / "examples" / "mandelbrot" / "app.py"
EXPLORER = """\
apt: [python3]
pip: [numpy]
files:
  - {from: app.py, to: /app/app.py}
verify:
  - python3 -c "import numpy"
"""
PICTURE = "input[type=image]"
ZOOM_IN = 'a[title="Zoom in"]'
# How many of the picture's pixels, looked at in a grid, have different colours.
COLOURS = """(async () => {
    const image = new Image(); image.src = document.querySelector("input[type=image]").src;
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height), context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const seen = new Set();
    for (let x = 0; x < image.width; x += 8) for (let y = 0; y < image.height; y += 8)
        seen.add(context.getImageData(x, y, 1, 1).data.join());
    return seen.size;
})()"""


@pytest.fixture
def program() -> str:
    """Chromium."""
    found = chromium()
    if found is None:
        reason = "needs Debian's chromium: scripts/setup --tests"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return found


def test_the_explorer_is_zoomed_in_a_browser_through_an_exposed_port(
    program: str, based: Callable[[str], Program], tmp_path: Path
) -> None:
    project = based(EXPLORER)
    project.write(APP.read_text(), "app.py")
    slug = project("build").last

    def look(url: str) -> list[dict[str, Any]]:
        views = []
        with Browser(program, tmp_path / "profile") as browser:
            browser.open(url)
            for zoom in (False, False, True):
                if zoom:
                    browser.click(ZOOM_IN)
                views.append(
                    {
                        "title": browser.value("document.title"),
                        "query": browser.value("location.search"),
                        "colours": browser.value(COLOURS),
                        "picture": browser.screenshot(PICTURE),
                    }
                )
        return views

    async def explore() -> list[dict[str, Any]]:
        async with (
            AsyncClient(home=project.home) as client,
            await client.sandboxes.create(slug) as sandbox,
            await sandbox.spawn("python3", "/app/app.py", stdout="null", stderr="piped") as server,
        ):
            assert server.stderr is not None
            url = await sandbox.expose_http(8000)
            await sandbox.sh(
                "i=0; until python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8000))'"
                " 2>/dev/null; do [ $((i += 1)) -lt 100 ]; done"
            )
            return await asyncio.to_thread(look, url)

    whole, again, zoomed = asyncio.run(explore())
    assert whole == again
    assert whole["query"] == ""
    assert "level=1" in zoomed["query"]
    assert zoomed["title"] != whole["title"]
    # Two pictures, neither of them blank, of two places.
    assert min(whole["colours"], zoomed["colours"]) > 100
    assert zoomed["picture"] != whole["picture"]
