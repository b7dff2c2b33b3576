"""What everything else is built on: errors, atomic files, states, shared values."""
