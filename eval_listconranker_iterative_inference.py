"""Reproduce the results with iterative inference: `python3 eval_listconranker_iterative_inference.py --help`."""

from listcon_eval.cli.run import script

if __name__ == "__main__":
    script("iterative")
