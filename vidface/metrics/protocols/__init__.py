"""The protocols by name: a new one is a file beside this one, and a row here."""

from __future__ import annotations

from vidface.metrics.protocols.base import ScoringProtocol
from vidface.metrics.protocols.clip_retrieval import ClipRetrievalProtocol
from vidface.metrics.protocols.cross_verification import CrossVerificationProtocol
from vidface.metrics.protocols.identification import IdentificationProtocol
from vidface.metrics.protocols.retrieval import RetrievalProtocol
from vidface.metrics.protocols.verification import VerificationProtocol

PROTOCOLS: dict[str, type[ScoringProtocol]] = {
    "verification": VerificationProtocol,
    "cross-verification": CrossVerificationProtocol,
    "retrieval": RetrievalProtocol,
    "clip-retrieval": ClipRetrievalProtocol,
    "identification": IdentificationProtocol,
}
