"""`python -m suffice` is the same as `suffice`."""

from suffice.cli.main import main

if __name__ == "__main__":
    main()
