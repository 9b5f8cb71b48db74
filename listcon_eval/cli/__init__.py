"""The command line: verbs that parse and print, and hold no logic."""

from listcon_eval.cli.app import main

__all__ = ["main"]
