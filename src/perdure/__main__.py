"""``python -m perdure``: the same program as the ``perdure`` command."""

from __future__ import annotations

from perdure.cli.app import main

if __name__ == "__main__":
    main()
