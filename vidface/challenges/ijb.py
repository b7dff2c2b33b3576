"""IJB's lists of templates as a manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vidface.challenges.importing import WITHOUT_GALLERY, Challenge, Imported, write_import
from vidface.core.clips import SPLITS, Clip
from vidface.core.errors import VidfaceError
from vidface.core.values import check_name
from vidface.datasets.templates import TemplateList, read_templates


def import_ijb(
    templates: Path,
    root: Path,
    out: Path,
    *,
    order: str = "auto",
    split: str = "probe",
    force: bool = False,
) -> Imported:
    """A manifest of the images in a list of templates, each once, and a pipeline file.

    Args:
        templates, order: as for `vidface.datasets.templates.read_templates`.
        root: where the list's paths start.
        split: of all images.
        out, force: as for `import_iqiyi`.

    Raises:
        VidfaceError: what `read_templates` and `templates_clips` refuse; or files in `out` that
            say something else.
    """

    if not root.is_dir():
        raise VidfaceError(f"--root {root}: no such folder; the list's paths start there")
    listed = read_templates(templates, order=order)
    clips = templates_clips(listed, split)
    score = f'split = "{split}"\n{WITHOUT_GALLERY}'
    imported = write_import(IJB, clips, root, score, out, force)
    return replace(imported, templates=templates, order=order)


def templates_clips(templates: TemplateList, split: str) -> list[Clip]:
    """A clip for each path of a list of templates, so that each image is extracted once.

    A clip's id is its path; paths stand in order of first appearance. Its identity is that of its
    templates, empty where the list has none.

    Args:
        templates: what `read_templates` gives.
        split: that of all clips, a name of `vidface.core.clips.SPLITS`.

    Raises:
        VidfaceError: an unknown split, a path in templates of two identities.
    """
    check_name("split", split, SPLITS)
    subjects = templates.identities or ("",) * len(templates.template_ids)
    template_of: dict[str, int] = {}  # path → the first template that has it
    for path, row in zip(templates.paths, templates.rows.tolist(), strict=True):
        first = template_of.setdefault(path, row)
        if subjects[first] != subjects[row]:
            raise VidfaceError(
                f"path {path[:80]!r} is in template {templates.template_ids[first]!r} of "
                f"{subjects[first]!r} and in template {templates.template_ids[row]!r} of "
                f"{subjects[row]!r}; a clip is of one person: give each face a path of its own, "
                "or leave the identities out of the list"
            )
    return [Clip(path, path, subjects[row], split) for path, row in template_of.items()]


IJB = Challenge(name="ijb", source="detect", absent="have no file", import_data=import_ijb)
