"""`python -m vidface` is `vidface`."""

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; a Ctrl-C while it is being imported ends it without a word."""
    may_interrupt = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if may_interrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from vidface.cli import commands

    if may_interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    commands.main()


if __name__ == "__main__":
    main()
