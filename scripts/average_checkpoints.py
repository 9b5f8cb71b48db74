"""Average the weights of ListConRanker checkpoints that were trained from the same start.

    python scripts/average_checkpoints.py OUT FOLDER=WEIGHT FOLDER=WEIGHT ...

Weights are divided by their sum. The tokenizer is that of the first folder. Models that share their start often lie
where a mean is better than each of them: "Model soups" (arXiv 2203.05482), and with the start itself as one of them
"Robust fine-tuning of zero-shot models" (arXiv 2109.01903).
"""

import argparse
import sys
from pathlib import Path

from listcon_eval.model import load_checkpoint, save_checkpoint


def main() -> None:
    """Read the options, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", nargs="+", metavar="FOLDER=WEIGHT")
    options = parser.parse_args()
    folders = [text.rpartition("=") for text in options.folders]
    weights = [float(weight) for _, _, weight in folders]
    checkpoints = [load_checkpoint(folder) for folder, _, _ in folders]
    states = [checkpoint.model.state_dict() for checkpoint in checkpoints]
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    if any(other != shapes[0] for other in shapes):
        sys.exit("the checkpoints are of different sizes: only those of one start can be averaged")
    mean = {
        name: sum(state[name] * (weight / sum(weights)) for state, weight in zip(states, weights, strict=True))
        for name in states[0]
    }
    checkpoints[0].model.load_state_dict(mean)
    sys.stdout.write(f"{save_checkpoint(checkpoints[0].model, checkpoints[0].tokenizer, options.out)}\n")


if __name__ == "__main__":
    main()
