"""`python -m listcon_eval`: the command line."""

from listcon_eval.cli import main

if __name__ == "__main__":
    main()
