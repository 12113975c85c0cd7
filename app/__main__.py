"""The console script, and ``python -m app``."""

from __future__ import annotations

import signal


def main() -> None:
    """Run ``calibrant``. Loading it takes a second, in which Ctrl-C just ends the process: there
    is nothing to tidy up yet."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    from app.cli import main as run

    run()


if __name__ == "__main__":
    main()
