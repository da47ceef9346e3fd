"""The jobs that every tool does, from a bootstrapped Debian 13: the environment of examples/mandelbrot, and a
larger one."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

SUITE = "trixie"
CA_IN_IMAGE = "/etc/benchmark-ca.pem"
CHECKS = (
    "python3 --version",
    "pip3 --version",
    'python3 -c "import numpy; print(numpy.__version__)"',
)
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


LARGE_APT = """
python3 python3-pip python3-venv python3-dev build-essential git curl wget jq sqlite3 ripgrep
fd-find tree htop less vim-tiny nano zip unzip xz-utils zstd rsync openssh-client cmake ninja-build
pkg-config gdb strace lsof procps iproute2 iputils-ping bind9-dnsutils netcat-openbsd socat tmux
screen bc file patch graphviz poppler-utils postgresql-client redis-tools libpq-dev libxml2-dev
libxslt1-dev libffi-dev libssl-dev zlib1g-dev libjpeg62-turbo-dev nodejs gettext shellcheck man-db
ca-certificates gnupg time moreutils pv
"""
LARGE_PIP = """
requests httpx numpy pandas python-dotenv click typer flask fastapi uvicorn pydantic sqlalchemy
alembic jinja2 pyyaml tomlkit attrs orjson msgpack redis aiohttp aiofiles trio websockets tqdm
tabulate colorama pytest hypothesis ruff mypy black isort coverage beautifulsoup4 lxml pillow
matplotlib scipy networkx sympy scikit-learn joblib openpyxl xlsxwriter python-dateutil pytz boto3
cryptography pyjwt cachetools loguru structlog prompt-toolkit ipython psutil regex jsonschema
humanize werkzeug
"""


@dataclass(frozen=True)
class Job:
    """What is asked for. The same packages, file and checks for every tool.

    mounts: whether a Dockerfile keeps the packages of apt and pip in cache mounts
    """

    apt: tuple[str, ...] = ("python3", "python3-pip", "python3-venv", "python3-dev", "build-essential")
    pip: tuple[str, ...] = ("requests", "httpx", "numpy", "pandas", "python-dotenv")
    checks: tuple[str, ...] = CHECKS
    mounts: bool = False

    def sandboxfile(self) -> str:
        """The job as a Sandboxfile."""
        checks = "\n".join(f"  - {check}" for check in self.checks)
        return (
            f"name: benchmark\nbase: debian:{SUITE}\n"
            f"apt: [{', '.join(self.apt)}]\npip: [{', '.join(self.pip)}]\n"
            f"files:\n  - {{from: app.py, to: /app/app.py}}\nverify:\n{checks}\n"
        )

    def dockerfile(self, base: str) -> str:
        """The job as a Dockerfile, the way its users write it: without recommends, lists removed."""
        settings = dict(image_settings())
        lines = [f"FROM {base}", "ENV DEBIAN_FRONTEND=noninteractive"]
        lines += [f"ENV {name}={value}" for name, value in settings.items()]
        apt = "apt-get update && apt-get install -y --no-install-recommends " + " ".join(self.apt)
        pip = f"pip3 install --break-system-packages {' '.join(map(shlex.quote, self.pip))}"
        if self.mounts:
            kept = "--mount=type=cache,sharing=locked,target="
            lines += [
                "RUN rm -f /etc/apt/apt.conf.d/docker-clean",
                f"RUN {kept}/var/cache/apt {kept}/var/lib/apt/lists {apt}",
                f"RUN {kept}/root/.cache/pip {pip}",
            ]
        else:
            lines += [f"RUN {apt} && rm -rf /var/lib/apt/lists/*", f"RUN {pip} --no-cache-dir"]
        lines += ["COPY app.py /app/app.py", *(f"RUN {check}" for check in self.checks)]
        return "\n".join(lines) + "\n"

    def with_pip(self, name: str) -> Job:
        """The job with one more Python distribution."""
        return replace(self, pip=(*self.pip, name))

    def with_apt(self, name: str) -> Job:
        """The job with one more Debian package."""
        return replace(self, apt=(*self.apt, name))

    def with_other_pip(self, name: str, version: str) -> Job:
        """The job with one Python distribution in another version."""
        return replace(self, pip=tuple(f"{name}=={version}" if each == name else each for each in self.pip))

    def with_other_check(self) -> Job:
        """The job with its last check changed."""
        return replace(self, checks=(*self.checks[:-1], f"{self.checks[-1]} # changed"))


JOBS = {"seed": Job(), "large": Job(tuple(LARGE_APT.split()), tuple(LARGE_PIP.split()))}
BASE_ONLY = f"name: benchmark-base\nbase: debian:{SUITE}\n"
MORE_PIP, MORE_APT = "rich", "hello"
OTHER_PIP = ("python-dotenv", "1.0.1")


def image_settings() -> Mapping[str, str]:
    """What pip in the peers' images needs to work behind this host's certificates and index."""
    settings = {name: os.environ[name] for name in ("PIP_INDEX_URL",) if name in os.environ}
    if ca_bundle():
        settings["PIP_CERT"] = CA_IN_IMAGE
    return settings


def ca_bundle() -> Path | None:
    """The CA bundle that this host's settings name, if they do."""
    given = os.environ.get("SSL_CERT_FILE")
    return Path(given) if given else None


def write_context(directory: Path) -> None:
    """The build context: the file that the job copies."""
    directory.mkdir(parents=True)
    app = Path(__file__).resolve().parent.parent / "examples" / "mandelbrot" / "app.py"
    (directory / "app.py").write_bytes(app.read_bytes())


def bootstrap(tar: Path) -> None:
    """The peers' base image, bootstrapped as sandboxfile bootstraps its own. Needs root."""
    hooks = [f"--customize-hook=upload {ca_bundle()} {CA_IN_IMAGE}"] if ca_bundle() else []
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", *hooks, SUITE, os.fspath(tar)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
