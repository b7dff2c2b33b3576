"""The challenges whose files vidface takes, each with what is peculiar to it."""

from __future__ import annotations

from vidface.challenges.embeddings import EMBEDDINGS
from vidface.challenges.ijb import IJB
from vidface.challenges.importing import Challenge
from vidface.challenges.iqiyi import IQIYI
from vidface.challenges.lfrc import LFRC

CHALLENGES: dict[str, Challenge] = {entry.name: entry for entry in (IQIYI, LFRC, IJB, EMBEDDINGS)}
