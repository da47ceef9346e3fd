"""The explorer of examples/mandelbrot: its pictures, its addresses, its server."""

from __future__ import annotations

import base64
import importlib.util
import re
import struct
import sys
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

APP = Path(__file__).resolve().parents[2] / "examples" / "mandelbrot" / "app.py"


@pytest.fixture(scope="module")
def app() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mandelbrot_app", APP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def decoded(file: bytes) -> list[bytes]:
    """The rows of a PNG that uses filter 1 for true colour, each as red, green, blue bytes."""
    assert file.startswith(b"\x89PNG\r\n\x1a\n")
    position, chunks = 8, {}
    while position < len(file):
        (length,) = struct.unpack(">I", file[position : position + 4])
        kind, body = file[position + 4 : position + 8], file[position + 8 : position + 8 + length]
        (check,) = struct.unpack(">I", file[position + 8 + length : position + 12 + length])
        assert check == zlib.crc32(kind + body)
        chunks[kind] = body
        position += 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    raw = zlib.decompress(chunks[b"IDAT"])
    rows = []
    for number in range(height):
        line = bytearray(raw[number * (1 + width * 3) :][: 1 + width * 3])
        assert line.pop(0) == 1
        for i in range(3, len(line)):
            line[i] = (line[i] + line[i - 3]) & 255
        rows.append(bytes(line))
    return rows


def test_a_png_decodes_to_the_pixels_it_was_made_from(app: ModuleType) -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (5, 9, 3), dtype=np.uint8)
    assert decoded(app.png(pixels)) == [row.tobytes() for row in pixels]


def test_points_of_the_set_never_escape_and_others_do(app: ModuleType) -> None:
    times = app.escape_times(app.View(-0.5, 0.0, 0), 72, 45)
    assert np.isnan(times[22, 36])
    assert np.isfinite(times[0]).all()


def test_escape_times_agree_with_plain_iteration(app: ModuleType) -> None:
    view = app.View(-0.7, 0.3, 1)
    times = app.escape_times(view, 24, 15)
    pixel = view.pixel * app.WIDTH / 24
    for row in range(15):
        for column in range(24):
            c = complex(view.x + (column - 11.5) * pixel, view.y - (row - 7) * pixel)
            z, count = 0j, 0
            while abs(z) <= app.BAILOUT and count <= view.limit:
                z, count = z * z + c, count + 1
            if count > view.limit:
                assert np.isnan(times[row, column])
            else:
                assert times[row, column] == pytest.approx(count, abs=1.01)


def test_the_picture_is_symmetric_about_the_real_axis(app: ModuleType) -> None:
    times = app.escape_times(app.View(), 60, 40)
    np.testing.assert_allclose(times, times[::-1], equal_nan=True)


@pytest.mark.parametrize("palette", ["dusk", "ember", "meadow", "ocean", "ink"])
def test_every_palette_gives_a_colourful_picture(app: ModuleType, palette: str) -> None:
    pixels = app.colours(app.escape_times(app.View(), 90, 60), palette)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_a_view_comes_back_from_its_own_query(app: ModuleType) -> None:
    for view in app.PRESETS.values():
        again = app.parse_view(view.query)
        assert (again.level, again.palette) == (view.level, view.palette)
        assert again.x == pytest.approx(view.x, abs=view.pixel)


def test_moves_at_the_deepest_level_are_not_lost_in_rounding(app: ModuleType) -> None:
    view = app.View(-1.315180982, 0.073481726, app.MAX_LEVEL)
    assert app.parse_view(view.moved(0.25, 0).query).x > app.parse_view(view.query).x


def test_zoom_stays_between_its_limits(app: ModuleType) -> None:
    assert app.View(level=1).zoomed(-3).level == 0
    assert app.View(level=app.MAX_LEVEL).zoomed(3).level == app.MAX_LEVEL


def test_a_click_moves_the_centre_there_and_zooms_in(app: ModuleType) -> None:
    view = app.parse_view("x=0&y=0&level=0&at.x=720&at.y=0")
    assert (view.x, view.y, view.level) == (pytest.approx(1.8), pytest.approx(1.125), 1)


def test_a_form_sent_from_the_keyboard_zooms_into_the_middle(app: ModuleType) -> None:
    view = app.parse_view("x=0.1&y=0.2&level=3&at.x=0&at.y=0")
    assert (view.x, view.y, view.level) == (0.1, 0.2, 4)


@pytest.mark.parametrize(
    "query",
    [
        "x=nan",
        "x=inf",
        "y=1e999",
        "x=",
        "x=3.01",
        "x=" + "1" * 50,
        "level=-1",
        "level=37",
        "level=1.5",
        "level=٣",
        "level=99999999999",
        "palette=<b>",
        "palette=",
        "colour=red",
        "x=1&x=2",
        "x",
        "&",
        "at.x=1",
        "at.x=721&at.y=1",
        "a=1&" * 9,
    ],
)
def test_what_is_not_exactly_understood_is_refused(app: ModuleType, query: str) -> None:
    with pytest.raises(app.ViewError):
        app.parse_view(query)


class Site:
    """The explorer's server on a free port."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str, method: str = "GET") -> tuple[int, str, bytes]:
        try:
            with self._opener.open(
                urllib.request.Request(self.url + path, method=method), timeout=60
            ) as answer:
                return answer.status, answer.headers.get_content_type(), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers.get_content_type(), error.read()


@pytest.fixture(scope="module")
def site(app: ModuleType) -> Iterator[Site]:
    with app.Server(("127.0.0.1", 0), app.Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Site(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


def picture(page: bytes) -> bytes:
    found = re.search(rb'src="data:image/png;base64,([A-Za-z0-9+/=]+)"', page)
    assert found is not None
    return base64.b64decode(found[1], validate=True)


def test_two_views_are_different_pages_with_different_pictures(site: Site) -> None:
    first, second = site.get("/"), site.get("/?x=-0.7493&y=0.1&level=7&palette=ember")
    assert (first[0], first[1]) == (second[0], second[1]) == (200, "text/html")
    assert picture(first[2]) != picture(second[2])


def test_every_link_of_a_page_leads_to_a_page_or_picture(site: Site) -> None:
    _, _, page = site.get("/?level=2")
    links = set(re.findall(rb'href="([^"]+)"', page))
    assert len(links) > 15
    for link in sorted(links)[:8]:
        assert site.get(link.decode().replace("&amp;", "&"))[0] == 200


def test_the_picture_alone_is_the_one_in_the_page(site: Site) -> None:
    assert site.get("/image.png?level=3")[1:] == ("image/png", picture(site.get("/?level=3")[2]))


def test_a_bad_query_is_a_page_with_status_400_that_says_why(site: Site) -> None:
    status, kind, page = site.get("/?palette=%3Cscript%3E")
    assert (status, kind) == (400, "text/html")
    assert b"palette is one of" in page
    assert b"<script>" not in page


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/nowhere", "GET", 404), ("/", "POST", 501), ("/healthz", "GET", 200), ("/", "HEAD", 200)],
)
def test_other_requests_get_the_status_that_fits(site: Site, path: str, method: str, status: int) -> None:
    assert site.get(path, method)[0] == status
