"""The command line: verbs that parse and print, and hold no logic."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line. An interrupt while it is being imported, which takes a second, is no traceback."""
    try:
        from listcon_eval.cli.app import app
    except KeyboardInterrupt:
        sys.exit(130)
    app()
