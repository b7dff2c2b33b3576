"""Some clips that stand for all: what `--limit` runs, and what is tried beforehand."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from vidface.core.clips import Clip

CLIPS_A_TURN = 4  # of a person: enough for a gallery and a genuine pair


def choose_clips(
    clips: Sequence[Clip], n: int, *, a_turn: int = CLIPS_A_TURN, seed: int = 0
) -> tuple[Clip, ...]:
    """Up to n clips, spread over people and splits, in the order of `clips`.

    People take turns, and in a turn give up to `a_turn` clips, from each of their splits in
    rotation; those whose clips lie in other splits take turns with each other. Where a turn has
    room for a pair, people with a single clip (distractors, too) come last: no score needs them.
    Who comes first is drawn by name, so that a person more or less changes little.

    >>> people = {"ann": "train val val", "bob": "train val", "": "val"}
    >>> clips = [Clip(f"{who}{i}", "", who, split)
    ...          for who, splits in people.items() for i, split in enumerate(splits.split())]
    >>> [clip.clip_id for clip in choose_clips(clips, 5)]
    ['ann0', 'ann1', 'ann2', 'bob0', 'bob1']
    >>> {clip.identity for clip in choose_clips(clips, 3, a_turn=1)} == set(people)
    True
    """

    def draw(name: str) -> bytes:
        return hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogatepass")).digest()

    by_person: dict[str, list[int]] = defaultdict(list)
    for place, clip in enumerate(clips):
        by_person[clip.identity or f"\0{clip.clip_id}"].append(place)  # each stranger is one
    places_in_group: dict[object, int] = defaultdict(int)
    ranked: list[tuple[tuple[object, ...], int]] = []
    for person in sorted(by_person, key=draw):
        places = sorted(by_person[person], key=lambda place: draw(clips[place].clip_id))
        is_last = len(places) == 1 and a_turn > 1
        group = is_last, *sorted({clips[place].split for place in places})
        places_in_split: dict[str, int] = defaultdict(int)
        rotation = []
        for place in places:
            split = clips[place].split
            rotation.append((places_in_split[split], draw(split + person), place))
            places_in_split[split] += 1
        for number, (*_, place) in enumerate(sorted(rotation)):
            key = (number // a_turn, is_last, places_in_group[group], group, number)
            ranked.append((key, place))
        places_in_group[group] += 1
    return tuple(clips[place] for place in sorted(place for _, place in sorted(ranked)[:n]))
