"""`python -m sandboxfile`."""

from __future__ import annotations

from sandboxfile.cli.main import main

if __name__ == "__main__":
    main()
