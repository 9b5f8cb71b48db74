"""What the tests share: random checkpoints of the real architecture, made once a session."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from checkpoints import write_layout_1
from listcon_eval import ListConRanker

# A machine with other work is no fault of the code.
settings.register_profile("listcon_eval", deadline=None)
settings.load_profile("listcon_eval")

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the tests run in several processes


@pytest.fixture(autouse=True)
def _package_logger() -> Iterator[None]:
    """Undo what a command that ran in this process did to the package's logger, which `caplog` reads through."""
    yield
    logger = logging.getLogger("listcon_eval")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random checkpoint in layout 1."""
    return write_layout_1(tmp_path_factory.mktemp("checkpoint") / "tiny-random")


@pytest.fixture(scope="session")
def ranker(checkpoint_folder: Path) -> ListConRanker:
    """That checkpoint, float32, on the CPU, ranking by logits."""
    return ListConRanker.from_pretrained(checkpoint_folder, device="cpu", dtype="float32")


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """The path of a file of real reranking data; skips the test where there is none."""

    def find(name: str) -> Path:
        path = DATA / name
        if not path.exists():
            pytest.skip(f"no {name}: the real data is not part of this repository")
        return path

    return find
