"""The program with the fake client in place of the real one: `python driver.py VERB …`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

if __name__ == "__main__":
    from sandboxfile import api
    from sandboxfile.cli.main import main
    from tests.cli.fake import FakeClient, fake_doctor

    api.AsyncClient = FakeClient  # type: ignore[assignment,misc]
    api.doctor = fake_doctor  # type: ignore[assignment]
    main()
