"""What README and docs say works: their commands and their Python are run as they stand there."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.conftest import REPOSITORY
from vidface.cli.commands import cli
from vidface.settings.pipeline import shipped_pipelines

DOCUMENTS = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
    for path in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
}
README = DOCUMENTS["README.md"]


def commands_of(text: str) -> list[str]:
    """The commands that stand on lines of their own, without their comments."""
    lines = re.findall(r"^ {4,}(vidface [^\n]+)$", text, re.MULTILINE)
    return [re.sub(r"\s+# .*", "", line) for line in lines]


def inline_commands_of(text: str) -> list[str]:
    """The commands within sentences; those with "…" leave something out."""
    spans = re.findall(r"`(vidface [^`]+)`", text)
    return [" ".join(span.split()) for span in spans if "…" not in span]


COMMANDS = commands_of(README)
WHOLE_COMMANDS = {command for text in DOCUMENTS.values() for command in commands_of(text)}
EVERY_COMMAND = sorted(
    WHOLE_COMMANDS
    | {command for text in DOCUMENTS.values() for command in inline_commands_of(text)}
)
PYTHON = [
    code
    for text in DOCUMENTS.values()
    for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
]


def run(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", *shlex.split(command)]
    return subprocess.run(
        arguments, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True
    )


@pytest.mark.parametrize("command", EVERY_COMMAND)
def test_every_command_parses(command: str) -> None:
    """The options and commands that are named exist, with arguments where they need one."""
    words = shlex.split(command)[1:]
    context = cli.make_context("vidface", words[:1])
    subcommand = cli.get_command(context, words[0])
    assert subcommand is not None, command
    while (
        isinstance(subcommand, click.Group) and len(words) > 1 and words[1] in subcommand.commands
    ):
        context = subcommand.make_context(words[0], words[1:], parent=context)
        words, subcommand = words[1:], subcommand.commands[words[1]]
    if words[1:] or command in WHOLE_COMMANDS:  # else a sentence names the command alone
        subcommand.make_context(words[0], words[1:], parent=context)


def test_a_wrong_option_would_be_noticed() -> None:
    with pytest.raises(click.UsageError, match="No such option"):
        test_every_command_parses("vidface score --treshold 0.4")


@pytest.mark.slow
def test_table_2_is_what_the_modules_say() -> None:
    """Printed and computed, side by side, as docs/recognisers.md has them."""
    from vidface.backbones.catalogue import list_models

    rows = re.findall(
        r"^\| \d \| `([a-z0-9-]+)` \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$",
        DOCUMENTS["docs/recognisers.md"],
        re.M,
    )
    models = {model.name: model for model in list_models()}
    assert len(rows) == 6
    for name, flops, computed, size, mib in rows:
        model = models[name]
        assert flops.replace(" ", "") == model.published_flops
        assert size == model.published_size
        assert computed.startswith(f"{model.budget.flops / 1e6:.1f} M")
        assert mib == f"{model.budget.mib:.2f} MiB"


def test_there_is_something_to_test() -> None:
    assert len(COMMANDS) >= 7
    assert len(EVERY_COMMAND) > 60
    assert len(PYTHON) == 2
    assert not any("{{" in text for text in DOCUMENTS.values())


def test_the_readme_is_one_page() -> None:
    assert README.count("\n") <= 150


@pytest.mark.slow
def test_the_site_has_no_broken_link(tmp_path: Path) -> None:
    """Links, anchors, names of the reference: `make docs` fails on a wrong one."""
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [*build, str(tmp_path / "site")],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "cluster_frames" in (tmp_path / "site" / "api" / "index.html").read_text("utf-8")


@pytest.fixture
def own_clips(data: Path, tmp_path: Path) -> Path:
    """A new user's folder: clips/PERSON/CLIP.mp4, three people of the real clips."""
    lines = (data / "wlasl.csv").read_text().splitlines()[1:]
    for line in lines:
        _, path, identity, _ = line.split(",")
        if identity in ("signer_P00", "signer_P03"):
            (tmp_path / "clips" / identity).mkdir(parents=True, exist_ok=True)
            shutil.copy(data / path, tmp_path / "clips" / identity)
    return tmp_path


@pytest.mark.slow
@pytest.mark.usefixtures("weights_at_hand")
def test_your_own_clips(own_clips: Path) -> None:
    start = COMMANDS.index("vidface run clips")
    commands = COMMANDS[start : start + 5]
    assert [shlex.split(c)[1] for c in commands] == ["run", "extract", "cluster", "score", "sweep"]
    printed = (
        README.partition("among others, these lines")[2].partition("\n\n")[2].partition("\n\n")[0]
    )
    assert len(printed.splitlines()) == 4
    for command in commands:
        done = run(command, own_clips)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        if command.startswith("vidface score"):
            said = {line.strip() for line in done.stdout.splitlines()}
            assert {line.strip() for line in printed.splitlines()} <= said
    assert "mAP@100" in done.stdout
    scored = json.loads(next((own_clips / "runs" / "clips" / "scores").glob("*.json")).read_text())
    assert scored["retrieval"] == {
        "map_at_100": 1.0,
        "ci95": [1.0, 1.0],
        "ci95_note": "identities are resampled; the pool of clips is held fixed",
        "identities": 2,
        "identities_without_gallery": [],
        "identities_without_descriptor": [],
    }
    assert scored["counts"]["clips"] == 4


@pytest.mark.slow
@pytest.mark.usefixtures("weights_at_hand")
def test_the_python(own_clips: Path) -> None:
    clips = sorted((own_clips / "clips").glob("*/*.mp4"))
    shutil.copy(clips[0], own_clips / "a.mp4")
    shutil.copy(clips[1], own_clips / "b.mp4")
    assert run("vidface init clips", own_clips).returncode == 0
    for code in PYTHON:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=own_clips, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout
    same_person = float(done.stdout.split()[1].rstrip("]"))
    assert 0.5 < same_person < 1  # two clips of the first person


@pytest.mark.slow
def test_the_notebook(tmp_path: Path) -> None:
    """Its cells run one after the other, as Jupyter runs them; what they show is what they say."""
    notebook = json.loads((REPOSITORY / "docs" / "first_hour.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    sources = [json.dumps("".join(cell["source"])) for cell in cells]
    code = "import ast\nnames, shown = {}, []\n"
    for source in sources:
        code += (
            f"cell = ast.parse({source})\n"
            "last = cell.body.pop().value if isinstance(cell.body[-1], ast.Expr) else None\n"
            "exec(compile(cell, 'cell', 'exec'), names)\n"
            "shown.append(last and eval(compile(ast.Expression(last), 'cell', 'eval'), names))\n"
            "print(shown[-1])\n"
        )
    code += "assert names['gain'] > 0.1\nassert names['score'].retrieval.map_at_k == 1\n"
    code += "assert any(hasattr(value, '_repr_png_') for value in shown)\n"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Score(val against train, threshold 0.5: 60 clips, 20 people)" in done.stdout
    assert "row 0: unknown split 'vla'" in done.stdout


def test_recipes_and_manifests_are_documented() -> None:
    text = (REPOSITORY / "data_manifests" / "README.md").read_text(encoding="utf-8")
    for name in shipped_pipelines():
        assert name == "demo" or f"`{name}`" in text
    for path in (REPOSITORY / "data_manifests").glob("*.csv"):
        assert f"`{path.name}`" in text


@pytest.mark.slow
@pytest.mark.usefixtures("weights_at_hand")
def test_the_demo_shows_what_noise_removal_gains(tmp_path: Path) -> None:
    """In an empty folder, with no pipeline given, as a new user has it; and then the commands."""
    done = run("vidface demo --json", tmp_path)
    assert done.returncode == 0, done.stderr
    demo = json.loads(done.stdout)
    before, after = (demo[name]["retrieval"]["map_at_100"] for name in ("before", "after"))
    assert before < 0.97
    assert after >= before + 0.02
    assert demo["after"]["counts"]["clips"] == 120
    for command in COMMANDS[1:]:
        if command.startswith(("vidface extract", "vidface cluster", "vidface score")):
            if "--weights" in command:
                continue  # names a file of the user's own
            done = run(f"{command} --run runs/demo --json", tmp_path)
            assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert again["retrieval"]["map_at_100"] == after
    for command in commands_of(DOCUMENTS["docs/noise.md"]):
        if command.startswith(("vidface clips", "vidface show")):
            done = run(f"{command} --run runs/demo --json", tmp_path)
            assert done.returncode == 0, done.stderr
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    honest = json.loads(run("vidface sweep runs/demo --folds 5 --json", tmp_path).stdout)["honest"]
    assert before < honest["map_at_100"] <= 1
    unclustered = json.loads(run("vidface score runs/demo --threshold -1 --json", tmp_path).stdout)
    assert unclustered["retrieval"]["map_at_100"] == before


def test_setup_names_every_package() -> None:
    """A package that setup.cfg does not name is missing from the wheel."""
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    folders = {path.parent for path in (REPOSITORY / "vidface").rglob("__init__.py")}
    packages = {".".join(folder.relative_to(REPOSITORY).parts) for folder in folders}
    named = set(setup["options"]["packages"].split())
    assert named - {"vidface.pipelines", "vidface.data_manifests"} == packages


@pytest.mark.slow
def test_an_installed_wheel_runs_its_demo_in_an_empty_folder(tmp_path: Path) -> None:
    """Recipes and manifests travel inside the wheel, and `pip install .` needs setup.cfg alone."""
    source = tmp_path / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, tracked):
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, source / name)
    target = tmp_path / "installed"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--target", str(target), str(source)),
        ],
        check=True,
    )
    installed = {path.name for path in (target / "vidface" / "pipelines").iterdir()}
    assert {f"{name}.toml" for name in shipped_pipelines()} <= installed
    assert (target / "vidface" / "data_manifests" / "ytf.csv").is_file()
    code = (
        "import vidface, vidface.settings.pipeline as p; print(vidface.__file__);"
        "print(p.load_pipeline('demo').manifest.prepare);"
        "print(p.load_pipeline('ytf_y1').manifest.path.is_file());"
        "import pkgutil, importlib;"
        "names = [m.name for m in pkgutil.walk_packages(vidface.__path__, 'vidface.')];"
        "[importlib.import_module(n) for n in names if n != 'vidface.__main__']"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(target / "vidface" / "__init__.py"), "demo", "True"]
