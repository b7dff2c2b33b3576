"""The site's pages that stand elsewhere in the repository, where people look for them on GitHub.

A hook of MkDocs: it adds README.md, CONTRIBUTING.md and so on as pages, and turns links between
files of the repository into links between pages.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[1]

# File of the repository → page of the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "pipelines/README.md": "pipelines.md",
    "data_manifests/README.md": "manifests.md",
    "benchmarks/README.md": "benchmark_scripts.md",
}
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")  # [text](file#anchor), images too


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand outside of docs/."""
    for source, page in PAGES.items():
        text = (REPOSITORY / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links to pages; of other files, leave the text."""
    sources = {page: source for source, page in PAGES.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def on_site(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if target.startswith("docs/"):
            return f"[{text}]({target.removeprefix('docs/')}{anchor})"
        if target in PAGES:
            return f"[{text}]({PAGES[target]}{anchor})"
        if (REPOSITORY / target).exists():  # no page of the site: CITATION.cff, a folder
            return text
        return link[0]  # MkDocs says that it leads nowhere

    return LINK.sub(on_site, markdown)
