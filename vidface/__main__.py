"""`python -m vidface` is `vidface`."""

from vidface.cli.commands import main

if __name__ == "__main__":
    main()
