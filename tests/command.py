"""Start commands as a user would: `listcon_eval` in this process, `cold` in one of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from typer.testing import CliRunner, Result

from listcon_eval.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
COMMAND = Path(sys.executable).parent / "listcon-eval"


def listcon_eval(*arguments: str | Path, code: int = 0) -> Result:
    """Run a command in this process and check how it ends; a traceback is a failure whatever the exit code."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, f"{done.stdout}\n{done.stderr}"
    return done


def cold(
    *arguments: str | Path, code: int = 0, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program without a hub, and check how it ends."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **(environment or {})},
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def one_line(text: str) -> str:
    """A message without the line breaks that a console puts in."""
    return " ".join(text.split())
