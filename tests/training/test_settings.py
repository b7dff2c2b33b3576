"""Training recipes: what they may say, and what each stage comes to."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.conftest import RECIPE
from vidface.core.errors import VidfaceError
from vidface.core.settings import settings_of
from vidface.settings.document import replace_table
from vidface.settings.pipeline import shipped_pipelines, shipped_trainings
from vidface.training.augment import AUGMENTATIONS
from vidface.training.recipes import load_training, training_markdown
from vidface.training.settings import LISTS, TABLES, TrainingPipeline
from vidface.training.stages import STAGE_LOSSES, Stage, build_cut, resolve_stages


def read(tmp_path: Path, text: str) -> TrainingPipeline:
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    return load_training(file)


def stages_of(tmp_path: Path, stages: str, before: str = "") -> tuple[Stage, ...]:
    return resolve_stages(read(tmp_path, f'[data]\npath = "people"\n{before}\n{stages}'))


def test_paths_start_at_the_file_and_defaults_hold(tmp_path: Path) -> None:
    recipe = read(tmp_path, RECIPE)
    assert recipe.data.path == tmp_path / "people"
    assert recipe.run.dir == Path.cwd() / "runs" / "recipe"
    assert recipe.augment == {"flip": True}
    assert recipe.choose_by == "last"
    assert recipe.train.scale == 64


def test_held_out_people_choose_where_there_are_some(tmp_path: Path) -> None:
    text = RECIPE.replace('path = "people"', 'path = "people"\nhold_out_people = 2')
    assert read(tmp_path, text).choose_by == "held-out"


def test_overrides_are_relative_to_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    overrides = {("data", "path"): "elsewhere", ("train", "seed"): 4}
    recipe = load_training(tmp_path / "recipe.toml", overrides)
    assert recipe.data.path == Path.cwd() / "elsewhere"
    assert recipe.train.seed == 4


WRONG = [
    ("seed = 1", "sed = 1", r"unknown key 'sed' in \[train\]"),
    ("seed = 1", 'seed = "one"', r"\[train\] seed: must be a whole number"),
    ("seed = 1", "seed = -1", r"\[train\] seed: must lie in"),
    ('"paper-x0.1-d0.1-e16"', '"resnet"', "no architecture named 'resnet'"),
    ("batch_size = 8", "batch_size = 1", r"\[train\] batch_size: must be at least 2"),
    ("seed = 1", "sample_rate = 0.0", r"sample_rate: must lie in \(0, 1\]"),
    ("seed = 1", 'precision = "int8"', "unknown value 'int8'"),
    ("seed = 1", 'choose_by = "LFW"', r"choose_by: unknown value 'LFW' \(known: last\)"),
    ("seed = 1", "validate_epochs = 0.0", "validate_epochs"),
    ("[optimiser]", '[optimiser]\nname = "lion"', r"\[optimiser\] name: unknown value"),
    ("[optimiser]", "[optimiser]\nmomentum = 1.0", r"momentum: must lie in \[0, 1\)"),
    ("learning_rate = 0.05", "learning_rate = 0.0", "learning_rate: must be above 0"),
    ("warmup_steps = 2", "centres_learning_rate = 0.0", "learning_rate: must be above 0"),
    ("[optimiser]", "[optimizer]", r"unknown table \[optimizer\]"),
    ("[optimiser]", "[augment]\nblur = true\n[optimiser]", "unknown augmentation 'blur'"),
    ('path = "people"', "", r"\[data\] path is missing"),
    ('path = "people"', 'path = "people"\nkind = "lmdb"', r"\[data\] kind: unknown value 'lmdb'"),
    ('path = "people"', 'path = "people"\nhold_out_people = 1', "hold_out_people"),
    ('name = "ArcFace"\n', "", r"\[\[stage\]\]: lacks name"),
    ("steps = 5", "", "say how long: epochs or steps"),
    ("steps = 5", "steps = 5\nepochs = 1", "say how long: epochs or steps, one of them"),
    ("steps = 5", "steps = 0", "steps: must be at least 1"),
    ("steps = 5", "steps = 5\nbatch_size = 0", "batch_size: must be at least 2"),
    ("steps = 5", 'steps = 5\nstart = "middle"', "start: unknown value 'middle'"),
    ("steps = 5", "steps = 5\nimages_per_person = 1", "images_per_person"),
    ("steps = 5", "steps = 5\nimages_per_person = 3", "batch_size 8 is no multiple"),
    ("steps = 5", 'steps = 5\nremove = ["intra"]', "remove 'intra': the stage before has none"),
    ("steps = 5", 'steps = 5\nremove = ["l2"]', "unknown loss 'l2'"),
    ("losses.arcface]", "losses.softmax]", r"unknown loss 'softmax' \(known: arcface, .*distil\)"),
    ("margin_radians = 0.3", "margin = 0.3", "'arcface' has no setting 'margin'"),
    ("margin_radians = 0.3", "margin_radians = 28.6", "arcface|margin_radians"),
    ("arcface]\nmargin_radians = 0.3", "distil]", r"needs a \[teacher\] table"),
    ("steps = 5", "steps = 5\n[stage.cut]\nmin_faces = 3", "cut has no setting 'min_faces'"),
    ("steps = 5", "epochs = inf", "epochs: must be finite"),
    ("seed = 1", "validate_epochs = inf", "validate_epochs: must be finite"),
    ("seed = 1", "mean = nan", "mean: must be finite"),
    ("seed = 1", f"seed = {2**63}", "seed: must lie in"),
    ("seed = 1", f"scale = {10**400}", "scale: a number beyond all bounds"),
    ("threads = 1", "threads = 99999999999", "threads: must lie in"),
    ("learning_rate = 0.05", "learning_rate = inf", "learning_rate: must be finite"),
    ("seed = 1", 'device = "cuda:1"', "device: unknown value 'cuda:1'"),
    ("[optimiser]", "[augment]\ndegrade.worst_quality = 'a'\n[optimiser]", "a whole number"),
    ("[optimiser]", "[teacher]\nbend_pixels = nan\n[optimiser]", "bend_pixels: must be finite"),
    ("[optimiser]", "[teacher]\nbend_pixels = -1.0\n[optimiser]", "bend_pixels: must lie in"),
    ("[optimiser]", "[teacher]\nmix_share = 7.0\n[optimiser]", "mix_share: must lie in"),
    ("steps = 5", 'steps = 5\nremove = ["cut"]', "the stage before cuts nothing"),
    ('name = "Combined"', 'name = "two\\nlines"', "a name of one line"),
    ('name = "Combined"', 'name = "ArcFace"', r"\[\[stage\]\]: two have the name ArcFace"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG)
def test_wrong_recipes_are_said_in_one_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = RECIPE.replace("[train]", "[train]\nseed = 1")
    assert old in text
    with pytest.raises(VidfaceError, match=message) as caught:
        read(tmp_path, text.replace(old, new, 1))
    assert str(caught.value).startswith(f"training {tmp_path / 'recipe.toml'}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train", "not TOML"),
        ('train = 3\n[data]\npath = "x"', r"\[train\] must be a table"),
        ('stage = 3\n[data]\npath = "x"', r"write \[\[stage\]\]"),
        ('[data]\npath = "x"', r"\[\[stage\]\]: there is none"),
        ('augment = 1\n[data]\npath = "x"', r"\[augment\]: must be a table"),
    ],
)
def test_documents_of_another_shape(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(VidfaceError, match=message):
        read(tmp_path, text)


def test_a_recipe_that_is_not_there_lists_the_shipped() -> None:
    with pytest.raises(VidfaceError, match="shipped recipes: train_light, train_progressive"):
        load_training("train_everything")


def test_losses_stay_margins_replace_each_other_and_removed_ones_go(tmp_path: Path) -> None:
    stages = stages_of(
        tmp_path,
        """
[[stage]]
name = "a"
steps = 1
losses.arcface.margin_radians = 0.4
[[stage]]
name = "b"
steps = 1
losses.combined = {}
losses.intra.weight = 2.0
[[stage]]
name = "c"
steps = 1
losses.intra.weight = 3.0
losses.sv-guided.t = 1.3
[[stage]]
name = "d"
steps = 1
remove = ["sv-guided"]
losses.combined.m3 = 0.1
""",
    )
    assert [dict(stage.losses) for stage in stages] == [
        {"arcface": {"margin_radians": 0.4}},
        {"combined": {}, "intra": {"weight": 2.0}},
        {"combined": {}, "intra": {"weight": 3.0}, "sv-guided": {"t": 1.3}},
        {"combined": {"m3": 0.1}, "intra": {"weight": 3.0}},
    ]


def test_cut_sampling_and_augmentation_stay_until_changed(tmp_path: Path) -> None:
    stages = stages_of(
        tmp_path,
        """
[[stage]]
name = "a"
steps = 1
losses.arcface = {}
cut.min_images = 5
images_per_person = 4
augment.colour = true
[[stage]]
name = "b"
steps = 1
[[stage]]
name = "c"
steps = 1
remove = ["cut"]
images_per_person = 0
augment.colour = false
batch_size = 16
learning_rate = 0.5
[[stage]]
name = "d"
steps = 1
cut.max_images = 20
""",
    )
    assert [stage.cut for stage in stages] == [
        {"min_images": 5},
        {"min_images": 5},
        None,
        {"max_images": 20},
    ]
    assert [stage.cut_by for stage in stages] == [1, 1, None, 4]
    assert [stage.sampling for stage in stages] == ["people-by-images"] * 2 + ["shuffled"] * 2
    assert [stage.augment["colour"] for stage in stages] == [True, True, False, False]
    assert [stage.batch_size for stage in stages] == [128, 128, 16, 128]
    assert [stage.learning_rate for stage in stages] == [0.1, 0.1, 0.5, 0.1]


def test_a_teacher_and_people_take_each_others_place(tmp_path: Path) -> None:
    teacher = "[teacher]\ncount = 10"
    stages = stages_of(
        tmp_path,
        """
[[stage]]
name = "repeat"
steps = 1
losses.distil.relation = 1.0
[[stage]]
name = "tell apart"
steps = 1
losses.arcface = {}
""",
        teacher,
    )
    assert [list(stage.losses) for stage in stages] == [["distil"], ["arcface"]]
    assert [stage.distils for stage in stages] == [True, False]
    both = '[[stage]]\nname = "a"\nsteps = 1\nlosses.distil = {}\nlosses.arcface = {}'
    with pytest.raises(VidfaceError, match="'distil' stands alone, but there is arcface"):
        stages_of(tmp_path, both, teacher)
    cut = '[[stage]]\nname = "a"\nsteps = 1\nlosses.distil = {}\ncut.min_images = 3'
    with pytest.raises(VidfaceError, match="leave cut and images_per_person out"):
        stages_of(tmp_path, cut, teacher)


def test_folder_names_are_plain(tmp_path: Path) -> None:
    stages = stages_of(
        tmp_path, '[[stage]]\nname = "../../etc/… + Größe"\nsteps = 1\nlosses.arcface = {}'
    )
    assert re.fullmatch("01-[a-z0-9-]+", stages[0].folder)


def test_an_empty_cut_is_the_default_one_and_short_stays(tmp_path: Path) -> None:
    stages = stages_of(
        tmp_path,
        """
[[stage]]
name = "a"
steps = 1
losses.arcface = {}
images_per_person = 4
short = "skip"
cut = {}
[[stage]]
name = "b"
steps = 1
""",
    )
    assert [stage.cut for stage in stages] == [{}, {}]
    assert [stage.short for stage in stages] == ["skip", "skip"]


def test_a_teachers_path_starts_where_it_should(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(text: str) -> str:
        teacher = read(tmp_path, f'{RECIPE}\n[teacher]\nweights = "{text}"').teacher
        assert teacher is not None
        return teacher.weights

    monkeypatch.setenv("TEACHER", "models/t.onnx")
    assert weights("sface") == "sface"
    assert weights("models/t.onnx") == str(tmp_path / "models" / "t.onnx")
    assert weights("${TEACHER}") == str(Path.cwd() / "models" / "t.onnx")


def test_off_is_none() -> None:
    settings = build_cut({"own_cosine": "off", "min_images": 3})
    assert (settings.own_cosine, settings.min_images) == (None, 3)


def test_shipped_recipes_are_read_and_are_no_pipelines() -> None:
    assert set(shipped_trainings()) == {"train_light", "train_progressive"}
    assert not set(shipped_trainings()) & set(shipped_pipelines())
    for name in shipped_trainings():
        assert resolve_stages(load_training(name))


def test_the_progressive_recipe_is_the_papers_schedule() -> None:
    names = [list(stage.losses) for stage in resolve_stages(load_training("train_progressive"))]
    table3 = ["arcface"], ["arcface"], ["combined"], ["combined", "sv-guided"]
    wrapped = ["combined", "sv-guided", "intra", "inter"]
    balanced = ["combined", "intra", "inter", "class-balance"]
    assert names == [
        *table3,
        wrapped,
        balanced,
        balanced,
        [*balanced, "triplet"],
        [*balanced, "triplet"],
    ]
    stages = resolve_stages(load_training("train_progressive"))
    assert [stage.images_per_person for stage in stages] == [0] * 6 + [4] * 3
    assert [stage.cut is not None for stage in stages] == [False] * 8 + [True]
    assert all(stage.settings.start == "best" for stage in stages)


def test_reading_a_recipe_needs_no_torch() -> None:
    code = (
        "import sys; from vidface.training.recipes import load_training; "
        "load_training('train_progressive'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_guides_table_is_that_of_the_settings() -> None:
    guide = Path(__file__).parents[2] / "docs" / "training.md"
    text = guide.read_text(encoding="utf-8")
    how = "write it anew: python -m vidface.training.recipes docs/training.md"
    assert replace_table(text, training_markdown()) == text, how


@pytest.mark.parametrize("name", [*TABLES, *LISTS, *STAGE_LOSSES, *AUGMENTATIONS])
def test_every_key_has_a_sentence(name: str) -> None:
    kind = {**TABLES, **LISTS, **STAGE_LOSSES, **AUGMENTATIONS}[name]
    for field in settings_of(kind):
        assert field.help[0].isupper(), field.name
        assert field.help.endswith("."), field.name
