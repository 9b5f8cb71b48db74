"""`listcon-eval clean`."""

from pathlib import Path
from typing import Annotated

import typer

from listcon_eval.cli.console import echo, handled_errors


@handled_errors()
def clean(
    results: Annotated[Path, typer.Argument(help="The folder that `run --output` named.")] = Path("results"),
    yes: Annotated[bool, typer.Option("--yes", help="Remove the folders; without it they are only listed.")] = False,
) -> None:
    """Remove what no result needs: older runs of what was run again, and the chunks of interrupted runs.

    Chunks of a run that is at work are left alone.

    Examples:
      listcon-eval clean                # list what would be removed

      listcon-eval clean results --yes
    """
    from listcon_eval.errors import ListconError
    from listcon_eval.results.chunk_cache import WORK, remove
    from listcon_eval.results.store import check_folder, results_folder, superseded

    check_folder(results)
    root = results_folder(results)
    if any(path.name in ("experiments", WORK) for path in results.glob("*/*/*")):
        root = results  # a folder of results that was renamed
    if not root.is_dir():
        raise ListconError(f"{results} has no folder {root.name}: give the folder that `run --output` named")
    folders = superseded(root)
    for folder in folders:
        if yes:
            remove(folder)
        echo(str(folder))
    echo(f"removed: {len(folders)}" if yes else f"to remove, with --yes: {len(folders)}")
