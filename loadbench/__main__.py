"""`python -m loadbench`."""

from loadbench.cli import main

if __name__ == "__main__":
    main()
