"""Reproduce the results without iterative inference: `python3 eval_listconranker.py --model_name_or_path PATH`."""

from listcon_eval.cli.run import script

if __name__ == "__main__":
    script("conventional")
