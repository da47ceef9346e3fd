"""An interactive explorer of the Mandelbrot set: NumPy draws, the standard library serves.

    python3 app.py [--host ADDRESS] [--port NUMBER]

Every view is an address. The page needs no JavaScript: moving, zooming and choosing colours are links,
and a click into the picture submits the place as form coordinates.

    /            the page; query: x, y (centre), level (0 to 36, each doubles the size), palette
    /image.png   the picture alone, same query
    /healthz     `ok`
"""

from __future__ import annotations

import argparse
import base64
import struct
import sys
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import floor, isfinite, log, log2
from socketserver import TCPServer
from urllib.parse import parse_qsl, urlencode, urlsplit

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 720, 450
FULL_WIDTH = 3.6  # of the complex plane, seen at level 0
MAX_LEVEL = 36  # beyond it, neighbouring pixels are closer than double precision can tell
EDGE = 3.0  # centres are kept within this distance of the origin
BAILOUT = 2.0**8  # a large radius makes the smooth colours smoother
BLOCK = 12  # rows computed together: few enough to stay in the processor's cache
BUDGET = 60_000_000  # pixel iterations for one picture: what bounds the time of the hardest view


class ViewError(ValueError):
    """A query does not describe a view; the text says why."""


@dataclass(frozen=True)
class View:
    """What one picture shows. `level` 0 is the whole set, each further level doubles the magnification."""

    x: float = -0.65
    y: float = 0.0
    level: int = 0
    palette: str = "dusk"

    @property
    def pixel(self) -> float:
        """Distance between neighbouring pixels in the complex plane."""
        return float(FULL_WIDTH / 2**self.level / WIDTH)

    @property
    def limit(self) -> int:
        """Iterations after which a point counts as inside: deeper views need more."""
        return 160 + 60 * self.level

    @property
    def magnification(self) -> str:
        """The magnification in words for people, such as `4,096x`."""
        return f"{2**self.level:,}x"

    @property
    def query(self) -> str:
        """The query string that leads back here."""
        digits = 3 + self.level // 3 + 2
        return urlencode(
            {
                "x": f"{self.x:.{digits}f}",
                "y": f"{self.y:.{digits}f}",
                "level": self.level,
                "palette": self.palette,
            }
        )

    def moved(self, right: float, up: float) -> View:
        """The view moved by shares of its width and height, kept near the set."""
        return replace(
            self,
            x=_clamp(self.x + right * WIDTH * self.pixel),
            y=_clamp(self.y + up * HEIGHT * self.pixel),
        )

    def zoomed(self, levels: int) -> View:
        """The view around the same centre, some levels deeper or (negative) wider."""
        return replace(self, level=min(max(self.level + levels, 0), MAX_LEVEL))


PRESETS = {
    "Whole set": View(),
    "Seahorse valley": View(-0.7493, 0.1, 7, "dusk"),
    "Elephant valley": View(0.284, 0.0098, 8, "meadow"),
    "Triple spiral": View(-0.0885, 0.6555, 8, "ember"),
    "Antenna": View(-1.7605, 0.0, 6, "ocean"),
    "Lightning": View(-1.315180982, 0.073481726, 16, "ink"),
}

# Colour stops around a cycle, as red, green, blue; the first one closes the circle.
PALETTES: Mapping[str, tuple[tuple[int, int, int], ...]] = {
    "dusk": ((12, 7, 56), (38, 66, 158), (112, 178, 226), (250, 240, 214), (240, 152, 62), (116, 28, 74)),
    "ember": ((18, 4, 10), (110, 12, 24), (222, 74, 24), (252, 186, 70), (255, 246, 214), (126, 62, 70)),
    "meadow": ((4, 24, 30), (12, 84, 80), (74, 160, 92), (206, 216, 110), (252, 246, 204), (130, 118, 60)),
    "ocean": ((2, 14, 38), (6, 62, 110), (22, 138, 170), (142, 218, 214), (246, 252, 246), (70, 110, 150)),
    "ink": ((10, 10, 14), (62, 64, 74), (140, 144, 152), (246, 244, 238), (160, 154, 148), (70, 66, 66)),
}


def parse_view(query: str) -> View:
    """The view that a query string describes; what it does not say is as in the whole set.

    Raises ViewError for anything that is not exactly understood: unknown or repeated names, numbers that are
    no numbers, centres far away, levels out of range.
    """
    given: dict[str, str] = {}
    try:
        pairs = parse_qsl(query, True, strict_parsing=True, max_num_fields=8) if query else []
    except ValueError:
        raise ViewError("the query is not a list of name=value pairs") from None
    for name, value in pairs:
        if name not in ("x", "y", "level", "palette", "at.x", "at.y"):
            raise ViewError(f"there is no parameter {name[:20]!r}")
        if name in given:
            raise ViewError(f"{name} is given twice")
        given[name] = value
    view = View(
        x=_number("x", given.get("x", "-0.65")),
        y=_number("y", given.get("y", "0")),
        level=_whole("level", given.get("level", "0"), MAX_LEVEL),
        palette=given.get("palette", "dusk"),
    )
    if view.palette not in PALETTES:
        raise ViewError(f"palette is one of {', '.join(PALETTES)}")
    if "at.x" in given or "at.y" in given:
        across = _whole("at.x", given.get("at.x", ""), WIDTH)
        down = _whole("at.y", given.get("at.y", ""), HEIGHT)
        # A form that is submitted from the keyboard sends 0,0: that means the middle.
        if (across, down) != (0, 0):
            view = view.moved(across / WIDTH - 0.5, 0.5 - down / HEIGHT)
        view = view.zoomed(1)
    return view


def _number(name: str, text: str) -> float:
    try:
        value = float(text) if len(text) <= 40 else float("nan")
    except ValueError:
        value = float("nan")
    if not isfinite(value) or abs(value) > EDGE:
        raise ViewError(f"{name} is a number from -{EDGE:g} to {EDGE:g}")
    return value


def _whole(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 6 and int(text) <= most):
        raise ViewError(f"{name} is a whole number from 0 to {most}")
    return int(text)


def _clamp(value: float) -> float:
    return min(max(value, -EDGE), EDGE)


def escape_times(view: View, width: int = WIDTH, height: int = HEIGHT) -> Floats:
    """For each pixel the smooth number of iterations until it escapes; NaN for points of the set.

    The smooth number is n + 1 - log2(log|z| / log bailout): it has no steps between one n and the next.
    """
    pixel = view.pixel * WIDTH / width
    across = view.x + (np.arange(width) - (width - 1) / 2) * pixel
    down = view.y - (np.arange(height) - (height - 1) / 2) * pixel
    times = np.empty((height, width))
    for top in range(0, height, BLOCK):
        rows = down[top : top + BLOCK]
        real = np.broadcast_to(across, (len(rows), width)).ravel()
        imaginary = np.repeat(rows, width)
        share = BUDGET * len(rows) // height
        times[top : top + BLOCK] = _iterate(real, imaginary, view.limit, share).reshape(-1, width)
    return times


def _iterate(c_real: Floats, c_imag: Floats, limit: int, budget: int) -> Floats:
    """Iterate z*z + c over a flat array, carrying only the points that have not escaped."""
    times = np.full(c_real.shape, np.nan)
    active = np.flatnonzero(~_surely_inside(c_real, c_imag))
    c_real, c_imag = c_real[active], c_imag[active]
    z_real, z_imag = c_real.copy(), c_imag.copy()
    old_real, old_imag, next_check = z_real.copy(), z_imag.copy(), 16
    for n in range(1, limit + 1):
        budget -= active.size
        if active.size == 0 or budget < 0:
            break
        real_square, imag_square = z_real * z_real, z_imag * z_imag
        size = real_square + imag_square
        done = size > BAILOUT * BAILOUT
        if done.any():
            times[active[done]] = n + 1 - np.log2(np.log(size[done]) / (2 * log(BAILOUT)))
            going = ~done
            active, c_real, c_imag = active[going], c_real[going], c_imag[going]
            z_real, z_imag, old_real, old_imag = (
                each[going] for each in (z_real, z_imag, old_real, old_imag)
            )
            real_square, imag_square = real_square[going], imag_square[going]
        z_imag *= z_real
        z_imag += z_imag
        z_imag += c_imag
        z_real = real_square - imag_square
        z_real += c_real
        if n == next_check:
            # An orbit that came back to where it was will never escape: the point is inside.
            going = (z_real != old_real) | (z_imag != old_imag)
            if not going.all():
                active, c_real, c_imag = active[going], c_real[going], c_imag[going]
                z_real, z_imag = z_real[going], z_imag[going]
            old_real, old_imag, next_check = z_real.copy(), z_imag.copy(), n + 24
    return times


def _surely_inside(real: Floats, imag: Floats) -> NDArray[np.bool_]:
    """Points of the main cardioid and of the disc left of it, which would take every iteration."""
    square = imag * imag
    q = (real - 0.25) ** 2 + square
    in_cardioid: NDArray[np.bool_] = q * (q + (real - 0.25)) <= 0.25 * square
    return in_cardioid | ((real + 1) ** 2 + square <= 0.0625)


def colours(times: Floats, palette: str) -> NDArray[np.uint8]:
    """Red, green, blue for each pixel; the set itself is nearly black."""
    stops = np.array(PALETTES[palette] + PALETTES[palette][:1], dtype=float)
    # The square root keeps bands wide where iteration counts rise steeply.
    turn = (np.sqrt(np.maximum(np.nan_to_num(times), 0)) * 0.17 - 0.2) % 1.0
    places = np.linspace(0, 1, len(stops))
    rgb = np.stack([np.interp(turn, places, stops[:, channel]) for channel in range(3)], axis=-1)
    rgb[np.isnan(times)] = (6, 6, 10)
    return (rgb + 0.5).astype(np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file from an array of rows of red, green, blue."""
    height, width, _ = pixels.shape
    # Each row starts with its filter: 1, the difference to the pixel on the left, which packs gradients well.
    rows = np.empty((height, 1 + width * 3), dtype=np.uint8)
    rows[:, 0] = 1
    rows[:, 1:4] = pixels[:, 0]
    rows[:, 4:] = (pixels[:, 1:] - pixels[:, :-1]).reshape(height, -1)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(rows.tobytes(), 4)),
            chunk(b"IEND", b""),
        )
    )


_drawing = threading.BoundedSemaphore(2)


@lru_cache(maxsize=48)
def picture(view: View) -> bytes:
    """The view as a PNG file; recent ones are kept."""
    with _drawing:
        return png(colours(escape_times(view), view.palette))


STYLE = """
:root { color-scheme: dark; --ink: #e9e6f2; --soft: #a9a4bd; --line: #37324a;
  --card: #1b1828; --glow: #f0a04b; }
* { box-sizing: border-box; }
body { margin: 0; background: #100e18; color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2rem 1.25rem 3rem; }
h1 { margin: 0; font-size: 1.7rem; letter-spacing: -.01em; }
h2 { margin: 0 0 .5rem; font-size: .8rem; text-transform: uppercase; letter-spacing: .09em;
  color: var(--soft); }
p.lead { margin: .25rem 0 1.5rem; color: var(--soft); }
.explorer { display: grid; grid-template-columns: minmax(0, 1fr) 15rem; gap: 1.5rem; align-items: start; }
figure { margin: 0; }
figure input { display: block; width: 100%; height: auto; border-radius: .6rem; cursor: zoom-in;
  box-shadow: 0 0 0 1px var(--line), 0 1rem 3rem #0008; }
figcaption { margin-top: .7rem; color: var(--soft); font: .85rem/1.5 ui-monospace, monospace; }
nav { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .9rem; }
nav + nav { margin-top: 1rem; }
a { color: var(--ink); text-decoration: none; }
.pad { display: grid; grid-template-columns: repeat(3, 1fr); gap: .4rem; }
.pad > *, .list > * { display: block; padding: .45rem .6rem; border: 1px solid var(--line);
  border-radius: .4rem; text-align: center; }
.list { display: grid; gap: .4rem; margin: 0; padding: 0; }
.row { display: flex; flex-wrap: wrap; gap: .4rem; }
.row > * { padding: .2rem .6rem; border: 1px solid var(--line); border-radius: 1rem; font-size: .9rem; }
a:hover { border-color: var(--glow); color: var(--glow); }
a:focus-visible, input:focus-visible { outline: 2px solid var(--glow); outline-offset: 3px; }
[aria-current] { border-color: var(--glow); color: var(--glow); }
[aria-disabled] { opacity: .35; }
@media (max-width: 760px) { .explorer { grid-template-columns: 1fr; } }
"""


def page(view: View) -> str:
    """The page of a view."""
    image = base64.b64encode(picture(view)).decode("ascii")
    wide, high = WIDTH * view.pixel, HEIGHT * view.pixel
    fields = parse_qsl(view.query)
    hidden = "".join(f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in fields)
    described = (
        f"The Mandelbrot set around {view.x:.6g} {view.y:+.6g}i, magnified {view.magnification}, "
        f"in the colours called {view.palette}. Activate it to zoom in where you click."
    )
    body = f"""
<h1>Mandelbrot explorer</h1>
<p class="lead">Drawn by NumPy {escape(np.__version__)} inside a sandbox.
Click the picture to zoom in there.</p>
<div class="explorer">
<figure>
<form action="/" method="get">{hidden}<input type="image" name="at" width="{WIDTH}" height="{HEIGHT}"
 alt="{escape(described)}" src="data:image/png;base64,{image}"></form>
<figcaption>centre {_exact(view, view.x)} {_exact(view, view.y, sign=True)}i<br>
{wide:.4g} wide, {high:.4g} high · {view.magnification} · up to {view.limit} iterations ·
<a href="/image.png?{escape(view.query)}"><u>the picture alone</u></a></figcaption>
</figure>
<div>
<nav aria-label="Move and zoom"><h2>Move and zoom</h2><div class="pad">{"".join(_pad(view))}</div></nav>
<nav aria-label="Places"><h2>Places</h2><div class="list">{"".join(_places(view))}</div></nav>
<nav aria-label="Colours"><h2>Colours</h2><div class="row">{"".join(_palettes(view))}</div></nav>
</div>
</div>"""
    return document(f"Mandelbrot explorer, {view.magnification}", body)


def document(title: str, body: str) -> str:
    """A whole HTML page."""
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{STYLE}</style></head>
<body><main>{body}
</main></body></html>
"""


def _exact(view: View, value: float, *, sign: bool = False) -> str:
    digits = max(3, floor(-log2(view.pixel) * 0.30103) + 2)
    return f"{value:{'+' if sign else ''}.{digits}f}"


def _pad(view: View) -> Iterator[str]:
    """The nine fields of the pad: moves around, zoom in the corners, the way home below."""
    step = 0.25
    yield _link("−", "Zoom out", view.zoomed(-1) if view.level else None)
    yield _link("↑", "Move up", view.moved(0, step))
    yield _link("+", "Zoom in", view.zoomed(1) if view.level < MAX_LEVEL else None)
    yield _link("←", "Move left", view.moved(-step, 0))
    yield _link("↺", "Reset to the whole set", replace(View(), palette=view.palette))
    yield _link("→", "Move right", view.moved(step, 0))
    yield _link("− −", "Zoom out 8 times", view.zoomed(-3) if view.level else None)
    yield _link("↓", "Move down", view.moved(0, -step))
    yield _link("+ +", "Zoom in 8 times", view.zoomed(3) if view.level < MAX_LEVEL else None)


def _link(text: str, title: str, to: View | None) -> str:
    if to is None:
        return f'<span aria-disabled="true" title="{title}">{text}</span>'
    return f'<a href="/?{escape(to.query)}" title="{title}" aria-label="{title}">{text}</a>'


def _places(view: View) -> Iterator[str]:
    for name, preset in PRESETS.items():
        here = ' aria-current="true"' if preset.query == view.query else ""
        yield f'<a href="/?{escape(preset.query)}"{here}>{escape(name)}</a>'


def _palettes(view: View) -> Iterator[str]:
    for name in PALETTES:
        here = ' aria-current="true"' if name == view.palette else ""
        yield f'<a href="/?{escape(replace(view, palette=name).query)}"{here}>{name}</a>'


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; everything else gets the base class's 501."""

    server_version = "mandelbrot"
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds a silent connection is kept

    def do_GET(self) -> None:
        """Answer one request."""
        url = urlsplit(self.path)
        try:
            if url.path == "/":
                self._answer(HTTPStatus.OK, "text/html; charset=utf-8", page(parse_view(url.query)).encode())
            elif url.path == "/image.png":
                self._answer(HTTPStatus.OK, "image/png", picture(parse_view(url.query)))
            elif url.path == "/healthz":
                self._answer(HTTPStatus.OK, "text/plain; charset=utf-8", b"ok\n")
            else:
                self._refuse(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        except ViewError as problem:
            self._refuse(HTTPStatus.BAD_REQUEST, str(problem))

    do_HEAD = do_GET  # noqa: N815 - the name the base class looks for

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        body = (
            f'<h1>{status.value} {status.phrase}</h1><p class="lead">{escape(why)}.</p>'
            '<p><a href="/"><u>Back to the whole set</u></a></p>'
        )
        self._answer(status, "text/html; charset=utf-8", document(status.phrase, body).encode())

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header(
            "Content-Security-Policy",
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'self'",
        )
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """One line for each request, on stderr."""
        line = format % args
        sys.stderr.write("".join(c if c.isprintable() else "?" for c in line) + "\n")


class Server(ThreadingHTTPServer):
    """A threading server that asks no name service for its own name."""

    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without the reverse look-up of the base class, which may wait for a network."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that went away is no error; anything else is shown as usual."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Serve an interactive explorer of the Mandelbrot set.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
    options = parser.parse_args()
    with Server((options.host, options.port), Handler) as server:
        print(f"Mandelbrot explorer: http://{options.host}:{server.server_port}/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
