"""`python -m vidface` is `vidface`."""

from vidface.cli import main

if __name__ == "__main__":
    main()
