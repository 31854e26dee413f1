"""`python -m ppl`: the command line, where the `ppl` script is not on the path."""

from ppl.cli import main

if __name__ == "__main__":
    main()
