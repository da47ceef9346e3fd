"""Properties hold however long a loaded machine takes to try an example."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("sandboxfile", deadline=None)
settings.load_profile("sandboxfile")
