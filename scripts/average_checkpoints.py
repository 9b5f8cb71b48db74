"""Average the weights of ListConRanker checkpoints that were trained from the same start.

    python scripts/average_checkpoints.py FOLDER=WEIGHT FOLDER=WEIGHT ... --output OUT

Weights are divided by their sum. Configuration and tokenizer are those of the first folder. The mean of models that
share their start can be better than each of them: "Model soups" (arXiv 2203.05482), and with the start itself as one of
them "Robust fine-tuning of zero-shot models" (arXiv 2109.01903).
"""

import argparse
import math
import sys
from pathlib import Path

from listcon_eval.errors import ListconError
from listcon_eval.model import load_checkpoint, save_checkpoint


def weighted(text: str) -> tuple[Path, float]:
    """A folder and its weight, of `FOLDER=WEIGHT`."""
    folder, _, weight = text.rpartition("=")
    if not Path(folder).is_dir() or not folder:
        raise argparse.ArgumentTypeError(f"{text!r}: expected FOLDER=WEIGHT, with a folder that exists")
    if not 0 < float(weight) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a weight above 0")
    return Path(folder), float(weight)


def main() -> None:
    """Read the options, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=weighted, metavar="FOLDER=WEIGHT")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT")
    options = parser.parse_args()
    total = sum(weight for _, weight in options.folders)
    weights = [weight / total for _, weight in options.folders]
    try:
        checkpoints = [load_checkpoint(folder) for folder, _ in options.folders]
    except ListconError as error:
        parser.error(str(error))
    states = [checkpoint.model.state_dict() for checkpoint in checkpoints]
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    if any(other != shapes[0] for other in shapes):
        parser.error("the checkpoints are of different sizes: only those of one start can be averaged")
    vocabularies = [checkpoint.tokenizer.get_vocab() for checkpoint in checkpoints]
    if any(other != vocabularies[0] for other in vocabularies):
        parser.error("the checkpoints have different vocabularies: only those of one start can be averaged")
    mean = {
        name: sum(state[name] * weight for state, weight in zip(states, weights, strict=True)) for name in states[0]
    }
    checkpoints[0].model.load_state_dict(mean)
    try:
        folder = save_checkpoint(checkpoints[0].model, checkpoints[0].tokenizer, options.output)
    except ListconError as error:
        parser.error(str(error))
    sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    main()
