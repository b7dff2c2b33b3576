"""Which clips and people a run forgot: salted hashes, by which its manifest is filtered.

`forgotten.json` holds no name. Whoever has the file and guesses a name can test the guess.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidface.core.clips import Clip
from vidface.core.digests import check_digest
from vidface.core.errors import VidfaceError
from vidface.core.files import read_json_object, write_json
from vidface.settings.manifests import clip_key

FORGOTTEN = "forgotten.json"
_REMEDY = "which clips must stay away is not known: put it back, or remove the run directory"


@dataclass(frozen=True)
class Forgotten:
    """Salted hashes of clip ids, of clips' files and times, and of identities.

    Attributes:
        unfinished: what a `vidface forget` has yet to do; None once it is done.
    """

    salt: bytes = b""
    clips: frozenset[str] = frozenset()
    people: frozenset[str] = frozenset()
    unfinished: Mapping[str, Any] | None = None

    def forgets_clip(self, clip_id: str) -> bool:
        """Whether a clip of this id was forgotten."""
        return bool(self.clips) and self._hash("clip", clip_id) in self.clips

    def forgets_person(self, identity: str) -> bool:
        """Whether an identity was, in any Unicode form; nobody's name, "", never is."""
        named = identity != "" and bool(self.people)
        return named and self._hash("person", same_name(identity)) in self.people

    def forgets(self, clip: Clip) -> bool:
        """Whether a line of the manifest was, or the same file and times under another id."""
        if self.forgets_person(clip.identity) or self.forgets_clip(clip.clip_id):
            return True
        return bool(self.clips) and self._hash("file", _file_key(clip)) in self.clips

    def with_more(
        self,
        clip_ids: Iterable[str],
        files: Iterable[Clip],
        people: Iterable[str],
        unfinished: Mapping[str, Any],
    ) -> Forgotten:
        """These and more, which are yet to be removed.

        Args:
            files: clips whose files are no other clip's.
        """
        begun = replace(self, salt=self.salt or os.urandom(16), unfinished=unfinished)
        return replace(
            begun,
            clips=self.clips
            | {begun._hash("clip", clip_id) for clip_id in clip_ids}
            | {begun._hash("file", _file_key(clip)) for clip in files},
            people=self.people | {begun._hash("person", same_name(name)) for name in people},
        )

    def write(self, folder: Path) -> None:
        """Write the list into a run directory."""
        document = {
            "format": "vidface-forgotten",
            "version": 1,
            "salt": self.salt.hex(),
            "clips": sorted(self.clips),
            "people": sorted(self.people),
        }
        if self.unfinished is not None:
            document["unfinished"] = dict(self.unfinished)
        write_json(folder / FORGOTTEN, document, digest=True)

    def _hash(self, kind: str, name: str) -> str:
        data = name.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(data, digest_size=16, key=self.salt, person=kind.encode())
        return digest.hexdigest()


NOBODY = Forgotten()


def _file_key(clip: Clip) -> str:
    return clip_key(clip.path, clip.start_seconds, clip.end_seconds)


def same_name(identity: str) -> str:
    """A person's name in one Unicode form: é may be one character or two."""
    return unicodedata.normalize("NFC", identity)


def read_forgotten(folder: Path) -> Forgotten:
    """What a run directory forgot; nothing where it has no such list.

    Raises:
        VidfaceError: the list is damaged: who was forgotten must not come back by that.
    """
    path = folder / FORGOTTEN
    if not path.is_file():
        return NOBODY
    check_digest(path, _REMEDY)
    document = read_json_object(path)
    try:
        salt = bytes.fromhex(document["salt"])
        clips, people = (frozenset(map(str, document[name])) for name in ("clips", "people"))
        unfinished = document.get("unfinished")
        if not 0 < len(salt) <= 64 or document["version"] != 1:
            raise ValueError
        if unfinished is not None:
            unfinished = {n: list(map(str, unfinished[n])) for n in ("remove", "clips_sha256")}
            if len(unfinished["clips_sha256"]) != 2:
                raise ValueError
    except (KeyError, ValueError, TypeError, AttributeError):
        raise VidfaceError(f"{path}: not a list that this vidface wrote; {_REMEDY}") from None
    return Forgotten(salt, clips, people, unfinished)


def check_finished(folder: Path) -> None:
    """Refuse to read a run directory in which forgetting was broken off.

    Raises:
        VidfaceError: it was; whatever opens the run with its settings finishes it.
    """
    if (folder / FORGOTTEN).is_file() and read_forgotten(folder).unfinished is not None:
        raise VidfaceError(
            f"run directory {folder}: `vidface forget` was broken off there; "
            f"`vidface clips {folder}`, as all that opens the run, finishes it"
        )
