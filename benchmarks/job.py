"""The job that every tool does: the environment of examples/mandelbrot, from a bootstrapped Debian 13."""

from __future__ import annotations

import os
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


@dataclass(frozen=True)
class Job:
    """What is asked for. The same packages, file and checks for every tool."""

    apt: tuple[str, ...] = ("python3", "python3-pip", "python3-venv", "python3-dev", "build-essential")
    pip: tuple[str, ...] = ("requests", "httpx", "numpy", "pandas", "python-dotenv")

    def sandboxfile(self) -> str:
        """The job as a Sandboxfile."""
        checks = "\n".join(f"  - {check}" for check in CHECKS)
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
        lines += [
            "RUN apt-get update && apt-get install -y --no-install-recommends "
            + " ".join(self.apt)
            + " && rm -rf /var/lib/apt/lists/*",
            f"RUN pip3 install --break-system-packages --no-cache-dir {' '.join(self.pip)}",
            "COPY app.py /app/app.py",
            *(f"RUN {check}" for check in CHECKS),
        ]
        return "\n".join(lines) + "\n"

    def with_pip(self, name: str) -> Job:
        """The job with one more Python distribution."""
        return replace(self, pip=(*self.pip, name))

    def with_apt(self, name: str) -> Job:
        """The job with one more Debian package."""
        return replace(self, apt=(*self.apt, name))


BASE_ONLY = f"name: benchmark-base\nbase: debian:{SUITE}\n"
MORE_PIP, MORE_APT = "rich", "jq"


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
