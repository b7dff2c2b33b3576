"""Templates: the images and video frames that together stand for one person, as in IJB.

A template is a set of media, a medium is one still image or several frames of one video.
`vidface.metrics.templates` makes one descriptor of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.values import check_array, check_name
from vidface.datasets.lines import named_columns, numbered_rows, open_list, single_places
from vidface.storage.names import IMAGE_SUFFIXES, VIDEO_SUFFIXES

ORDERS: dict[str, tuple[int, int, int] | None] = {
    "auto": None,
    "template-media-path": (0, 1, 2),
    "path-template-media": (1, 2, 0),
}
"""Where a line without a header has its template, its medium and its path."""

COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "template_id": ("template_id",),
    "media_id": ("media_id",),
    "path": ("path", "filename", "file"),
    "identity": ("subject_id", "identity"),
}
"""What a header may call the columns, in any case; `identity` may be missing."""

_MEDIA_SUFFIXES = tuple(IMAGE_SUFFIXES | VIDEO_SUFFIXES)


@dataclass(frozen=True, eq=False)
class TemplateList:
    """Which images make up which template. Checked when made.

    An image may be in several templates, and even in one template under two media; the same
    template, medium and path twice would count twice and is refused.
    """

    template_ids: tuple[str, ...]  # distinct; from a file: in order of first appearance
    rows: NDArray[np.int64]  # (n_images,) index into template_ids; each occurs
    media_ids: tuple[str, ...]  # n_images; a medium is one within its template
    paths: tuple[str, ...]  # n_images
    identities: tuple[str, ...] | None = None  # one a template; "" is nobody known

    def __post_init__(self) -> None:
        n, n_templates = len(self.paths), len(self.template_ids)
        rows = np.asarray(self.rows)
        check_array("templates, a row a path: rows", rows, (n,), "int64")
        if len(self.media_ids) != n:
            raise VidfaceError(f"templates: {len(self.media_ids)} media ids for {n} paths")
        if n == 0:
            raise VidfaceError("templates: there is no image in them")
        if rows.min() < 0 or rows.max() >= n_templates:
            raise VidfaceError(f"templates: rows has an index beyond {n_templates}")
        if len(set(self.template_ids)) != n_templates:
            raise VidfaceError("templates: a template id stands twice in template_ids")
        empty = np.flatnonzero(np.bincount(rows, minlength=n_templates) == 0)
        if len(empty):
            raise VidfaceError(f"templates: {self.template_ids[empty[0]]!r} has no image")
        if len(set(zip(rows.tolist(), self.media_ids, self.paths, strict=True))) != n:
            raise VidfaceError("templates: an image stands twice in one medium of a template")
        if self.identities is not None and len(self.identities) != n_templates:
            raise VidfaceError(
                f"templates: {len(self.identities)} identities for {n_templates} templates"
            )

    def __str__(self) -> str:
        if self.identities is None:
            known = "no identities"
        else:
            known = f"{len(set(self.identities) - {''})} identities"
        return (
            f"TemplateList({len(self.template_ids)} templates, {self.n_media} media, "
            f"{len(self.paths)} images of {len(set(self.paths))} paths, {known})"
        )

    @property
    def n_media(self) -> int:
        """Media, each counted in every template that it is in."""
        return len(set(zip(self.rows.tolist(), self.media_ids, strict=True)))


def read_templates(path: str | Path, *, order: str = "auto") -> TemplateList:
    """A list of templates, one image a line.

    Fields are separated by commas (if the first line has two or more; quotes as in CSV) or by
    white space, so that a path with a space needs the former. Without a header a line is
    `template_id media_id path`, or `path template_id media_id` as in ijbc_face_tid_mid.txt: "auto"
    takes the one of the first and the last field that has the suffix of an image or video on every
    line. A first line that names a column `template_id` or `media_id` is a header: it must name
    template_id, media_id and path (or filename, file), in any order and case, and says where they
    are whatever `order` is; subject_id or identity is who the template is of, others are ignored.

    Ids are text: template "01" is not "1". Blank lines are skipped. Half a million lines take
    some seconds.

    Args:
        path: the list, UTF-8.
        order: a name of `ORDERS`.

    Raises:
        VidfaceError: an unknown order, no such file, not UTF-8, no image, an order that can't be
            told; with the line: another number of fields, an empty one, the same template, medium
            and path again, a template of two identities.

    Source: read_template_media_list of InsightFace's IJB evaluation (`name tid mid`); the headers
    of IJB-A's protocol files.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "tid_mid.txt")
    ...     _ = path.write_text("1.jpg 7 70\\n2.jpg 7 71\\n3.jpg 7 71\\n1.jpg 9 70\\n")
    ...     templates = read_templates(path)
    >>> print(templates)
    TemplateList(2 templates, 3 media, 4 images of 3 paths, no identities)
    >>> templates.template_ids, templates.rows, templates.media_ids
    (('7', '9'), array([0, 0, 0, 1]), ('70', '71', '71', '70'))
    """
    check_name("order", order, ORDERS)
    path = Path(path)
    what = f"templates {path}"
    with open_list(path, what) as file:
        rows = list(numbered_rows(file, what))
    if not rows:
        raise VidfaceError(f"{what}: the file is empty; there should be an image a line")
    columns = _columns_of_header(*rows[0], what)
    if columns is not None:
        width = len(rows[0][1])
        rows = rows[1:]
        if not rows:
            raise VidfaceError(f"{what}: no images below the header")
    else:
        width = 3
    for line, fields in rows:
        if len(fields) != width:
            hint = "; a path with spaces needs commas between the fields" if width == 3 else ""
            raise VidfaceError(
                f"{what}, line {line}: {len(fields)} field(s) where {width} are due{hint}"
            )
    places = columns or _places(rows, order, what)
    return _as_templates(rows, places, what)


def _columns_of_header(line: int, fields: Sequence[str], what: str) -> dict[str, int] | None:
    """The place of each column that a header names; None where the line is no header."""
    columns = named_columns(fields, COLUMN_NAMES)
    if "template_id" not in columns and "media_id" not in columns:
        return None
    places = single_places(columns, fields, f"{what}, line {line}")
    for column, names in COLUMN_NAMES.items():
        if column not in places and column != "identity":
            raise VidfaceError(
                f"{what}, line {line}: no column {' or '.join(names)}; the header must name "
                f"template_id, media_id and path, it names {','.join(fields)[:200]}"
            )
    return places


def _places(rows: Sequence[tuple[int, list[str]]], order: str, what: str) -> dict[str, int]:
    """Where the lines of a list without a header have what."""
    known = ORDERS[order]
    if known is None:
        problems = [_first_without_suffix(rows, i) for i in (0, 2)]
        if (problems[0] is None) == (problems[1] is None):
            hint = "give order 'template-media-path' or 'path-template-media', or a header line"
            if problems[0] is None:
                reason = "the first and the last field of every line look like paths"
            else:
                reason = "neither the first nor the last field is a path on every line: " + (
                    " and ".join(
                        f"{field!r} on line {line}" for line, field in filter(None, problems)
                    )
                    + " have no suffix of an image or video"
                )
            raise VidfaceError(f"{what}: {reason}; {hint}")
        known = ORDERS["path-template-media" if problems[0] is None else "template-media-path"]
    return dict(zip(("template_id", "media_id", "path"), known or (), strict=True))


def _first_without_suffix(rows: Sequence[tuple[int, list[str]]], i: int) -> tuple[int, str] | None:
    """The first line whose field i is no path of an image or video, and that field."""
    for line, fields in rows:
        if not fields[i].lower().endswith(_MEDIA_SUFFIXES):
            return line, fields[i][:80]
    return None


def _as_templates(
    rows: Sequence[tuple[int, list[str]]], places: dict[str, int], what: str
) -> TemplateList:
    template, medium, path = places["template_id"], places["media_id"], places["path"]
    person = places.get("identity")
    ids: dict[str, int] = {}
    identities: list[tuple[str, int]] = []  # of each template, and the line that says so
    seen: dict[tuple[str, str, str], int] = {}
    numbers = []
    for line, fields in rows:
        image = fields[template], fields[medium], fields[path]
        if not all(image):
            raise VidfaceError(f"{what}, line {line}: an empty template id, media id or path")
        if image in seen:
            raise VidfaceError(
                f"{what}, line {line}: path {image[2][:80]!r} is in medium {image[1][:80]!r} of "
                f"template {image[0][:80]!r} already, on line {seen[image]}; remove one of them"
            )
        seen[image] = line
        number = ids.setdefault(image[0], len(ids))
        numbers.append(number)
        if person is None:
            continue
        identity = fields[person]
        if number == len(identities):
            identities.append((identity, line))
        elif identities[number][0] != identity:
            other, where = identities[number]
            raise VidfaceError(
                f"{what}, line {line}: template {image[0][:80]!r} is of {identity[:80]!r} here and "
                f"of {other[:80]!r} on line {where}; a template is of one person"
            )
    return TemplateList(
        template_ids=tuple(ids),
        rows=np.array(numbers, dtype=np.int64),
        media_ids=tuple(medium for _, medium, _ in seen),
        paths=tuple(path for _, _, path in seen),
        identities=None if person is None else tuple(identity for identity, _ in identities),
    )
