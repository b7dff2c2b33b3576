"""The choices that scores leave open: default targets, and the named conventions.

Free of NumPy, for the command line and pipeline files read them, too.
"""

from __future__ import annotations

DEFAULT_FARS = ("1e-1", "1e-2", "1e-3", "1e-4", "1e-5", "1e-6")
DEFAULT_FPIRS = ("1e-1", "1e-2", "1e-3")
DEFAULT_RANKS = (1, 5, 10)
DEFAULT_K = 100

CONVENTIONS = {
    "step": "the largest TAR whose FAR does not exceed the target",
    "nearest": "TAR at the ROC point whose FAR is nearest to the target, as common scripts read "
    "it; its FAR may exceed the target",
}
"""How TAR at a target FAR is read."""

ENROLMENTS = {
    "mean": "one template, the sum of the identity's gallery descriptors, normalised",
    "max": "every gallery descriptor is a template; the most similar one gives the score",
}
"""What an identity of the gallery is searched by."""
