"""Synthetic faces, a teacher's answers about them, and the loss that follows them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from vidface.core.errors import VidfaceError
from vidface.core.settings import build_settings
from vidface.training.distillation import Distil
from vidface.training.kept_answers import PIECE, ask_about_all
from vidface.training.settings import TeacherSettings
from vidface.training.synthetic import SyntheticFaces, bend_face, mix_faces


@dataclass
class Plain:
    """Faces of one colour each: face i is 10·i (modulo 256)."""

    count: int = 5
    asked: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> np.ndarray:
        self.asked.append(index)
        return np.full((112, 112, 3), 10 * index % 256, np.uint8)


class Teacher:
    """Embeds a face as (mean red, mean green, 1)."""

    name, sha256, dimension = "toy", "0" * 64, 3

    def __init__(self) -> None:
        self.seen = 0

    def embed(self, crops: np.ndarray) -> np.ndarray:
        self.seen += len(crops)
        means = crops.reshape(len(crops), -1, 3).mean(axis=1, dtype=np.float32)
        return np.concatenate([means[:, :2], np.ones((len(crops), 1), np.float32)], axis=1)


def test_the_sources_faces_come_first_and_unchanged() -> None:
    faces = SyntheticFaces(Plain(), TeacherSettings(count=8))
    assert len(faces) == 8
    assert [int(faces.image(i)[0, 0, 0]) for i in range(5)] == [0, 10, 20, 30, 40]


def test_a_face_is_a_pure_function_of_seed_and_number() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (6, 112, 112, 3), dtype=np.uint8)

    @dataclass
    class Noise:
        def __len__(self) -> int:
            return len(pictures)

        def image(self, index: int) -> np.ndarray:
            return pictures[index]

    kept = pictures.copy()
    one, same, other = (
        SyntheticFaces(Noise(), TeacherSettings(count=40, seed=seed)) for seed in (1, 1, 2)
    )
    backwards = {i: same.image(i) for i in reversed(range(40))}
    assert all(np.array_equal(one.image(i), backwards[i]) for i in range(40))
    assert any(not np.array_equal(one.image(i), other.image(i)) for i in range(6, 40))
    made = {one.image(i).tobytes() for i in range(40)}
    assert len(made) > 35  # an unbent, unmixed, unmoved one is the source's own
    assert np.array_equal(pictures, kept)


def test_no_mixing_and_no_bending_reads_one_face() -> None:
    source = Plain(50)
    faces = SyntheticFaces(source, TeacherSettings(count=80, mix_share=0, bend_share=0))
    for index in range(50, 80):
        source.asked.clear()
        faces.image(index)
        assert len(source.asked) == 1
    faces = SyntheticFaces(source, TeacherSettings(count=80, mix_share=1))
    source.asked.clear()
    faces.image(60)
    assert len(source.asked) == 2


def test_a_mixture_lies_between_its_two() -> None:
    dark, light = Plain().image(2), Plain().image(20)
    for seed in range(20):
        made = mix_faces(dark, light, np.random.default_rng(seed))
        assert made.min() >= 20 - 1
        assert made.max() <= 200 + 1


def test_bending_by_nothing_changes_nothing_and_by_more_moves_further() -> None:
    face = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    assert np.array_equal(bend_face(face, 0.0, np.random.default_rng(1)), face)
    ramp = np.tile(np.linspace(0, 223, 112)[None, :, None], (112, 1, 3)).astype(np.uint8)
    little, much = (
        np.mean([np.abs(bend_face(ramp, p, np.random.default_rng(s)).astype(float) - ramp).mean()
                 for s in range(20)])
        for p in (1.0, 4.0)
    )  # fmt: skip
    assert 2.5 < much / little < 5


@pytest.mark.parametrize("index", [-1, 8])
def test_a_face_that_is_not_there(index: int) -> None:
    with pytest.raises(VidfaceError, match=f"no face {index} of 8"):
        SyntheticFaces(Plain(), TeacherSettings(count=8)).image(index)


def test_fewer_faces_than_the_source_has() -> None:
    with pytest.raises(VidfaceError, match="count 4 is less than the source's 5"):
        SyntheticFaces(Plain(), TeacherSettings(count=4))


def test_answers_are_unit_rows_and_are_kept(tmp_path: Path) -> None:
    teacher = Teacher()
    answers = ask_about_all(Plain(), teacher, tmp_path / "answers", {"data": "x"})
    raw = np.array([[10.0 * i, 10.0 * i, 1] for i in range(5)])
    wanted = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.abs(answers - wanted).max() < 1e-3  # float16 in the file
    assert np.linalg.norm(answers, axis=1) == pytest.approx(np.ones(5), abs=1e-6)
    again = ask_about_all(Plain(), teacher, tmp_path / "answers", {"data": "x"})
    assert teacher.seen == 5
    assert np.array_equal(again, answers)


def test_a_call_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    class Stops(Teacher):
        def embed(self, crops: np.ndarray) -> np.ndarray:
            if self.seen >= PIECE + 128:
                raise KeyboardInterrupt
            return super().embed(crops)

    n = PIECE + 300
    with pytest.raises(KeyboardInterrupt):
        ask_about_all(Plain(n), Stops(), tmp_path, {})
    teacher, told = Teacher(), []
    answers = ask_about_all(Plain(n), teacher, tmp_path, {}, progress=told.append)
    assert teacher.seen == 300
    assert told == [n]
    fresh = ask_about_all(Plain(n), Teacher(), tmp_path / "fresh", {})
    assert np.array_equal(answers, fresh)


def test_answers_about_something_else_are_refused(tmp_path: Path) -> None:
    ask_about_all(Plain(), Teacher(), tmp_path, {"seed": 0})
    with pytest.raises(VidfaceError, match=r"something else \(seed differ\)"):
        ask_about_all(Plain(), Teacher(), tmp_path, {"seed": 1})
    other = Teacher()
    other.sha256 = "1" * 64
    with pytest.raises(VidfaceError, match="teacher_sha256"):
        ask_about_all(Plain(), other, tmp_path, {"seed": 0})


@pytest.mark.parametrize("damage", [b"", b"not safetensors"])
def test_damaged_answers_are_one_clear_line(tmp_path: Path, damage: bytes) -> None:
    ask_about_all(Plain(), Teacher(), tmp_path, {})
    (tmp_path / "answers-00000000.safetensors").write_bytes(damage)
    with pytest.raises(VidfaceError, match="damaged: remove it"):
        ask_about_all(Plain(), Teacher(), tmp_path, {})


def test_a_damaged_description_is_refused(tmp_path: Path) -> None:
    ask_about_all(Plain(), Teacher(), tmp_path, {})
    (tmp_path / "answers.json").write_text("[]")
    with pytest.raises(VidfaceError, match="something else"):
        ask_about_all(Plain(), Teacher(), tmp_path, {})


def test_a_teacher_without_an_answer_is_named(tmp_path: Path) -> None:
    class Silent(Teacher):
        def embed(self, crops: np.ndarray) -> np.ndarray:
            found = super().embed(crops)
            found[3] = 0
            return found

    with pytest.raises(VidfaceError, match="no embedding of face 3"):
        ask_about_all(Plain(), Silent(), tmp_path, {})
    assert not list(tmp_path.glob("*.safetensors"))


def test_the_loss_by_eye() -> None:
    # One student agrees, one is at a right angle: (0 + 1) / 2. Lengths do not matter.
    student = torch.tensor([[3.0, 0.0], [5.0, 0.0]])
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = Distil(relation=2.0)(student, teacher)
    # cosines among students are all 1, among teachers 1 and 0: two of four differ by 1.
    assert float(found.parts["distance"]) == pytest.approx(0.5)
    assert float(found.parts["relation"]) == pytest.approx(0.5)
    assert float(found.total) == pytest.approx(0.5 + 2 * 0.5)
    assert float(Distil()(student, teacher).total) == pytest.approx(0.5)


def test_the_loss_against_plain_numpy_and_its_gradient() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(7, 4)), rng.normal(size=(7, 4))
    teacher /= np.linalg.norm(teacher, axis=1, keepdims=True)

    def by_hand(rows: np.ndarray) -> float:
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        distance = sum(1 - unit[i] @ teacher[i] for i in range(7)) / 7
        relation = sum(
            (unit[i] @ unit[j] - teacher[i] @ teacher[j]) ** 2 for i in range(7) for j in range(7)
        )
        return float(distance + 0.5 * relation / 49)

    given = torch.tensor(student, dtype=torch.float32, requires_grad=True)
    total = Distil(relation=0.5)(given, torch.tensor(teacher, dtype=torch.float32)).total
    assert float(total.detach()) == pytest.approx(by_hand(student), abs=1e-5)
    total.backward()
    assert given.grad is not None
    for i, j in ((0, 0), (3, 2), (6, 3)):
        up, down = student.copy(), student.copy()
        up[i, j] += 1e-5
        down[i, j] -= 1e-5
        slope = (by_hand(up) - by_hand(down)) / 2e-5
        assert float(given.grad[i, j]) == pytest.approx(slope, abs=1e-4)


def test_another_dimension_than_the_teachers() -> None:
    with pytest.raises(VidfaceError, match="-e3"):
        Distil()(torch.ones(2, 4), torch.ones(2, 3))


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True, "much"])
def test_relation_out_of_range(value: object) -> None:
    with pytest.raises(VidfaceError, match="relation: must be"):
        Distil(relation=value)


def test_an_unknown_setting_lists_the_known() -> None:
    with pytest.raises(VidfaceError, match=r"no setting 'temperature' \(known: relation, hints\)"):
        build_settings(Distil, {"temperature": 4}, "loss 'distil'")


def test_the_description_says_of_whom(tmp_path: Path) -> None:
    ask_about_all(Plain(), Teacher(), tmp_path, {"seed": 5})
    said = json.loads((tmp_path / "answers.json").read_text())
    assert said == {"seed": 5, "teacher": "toy", "teacher_sha256": "0" * 64}


def test_more_or_fewer_of_the_same_faces(tmp_path: Path) -> None:
    few = ask_about_all(Plain(5), Teacher(), tmp_path, {})
    teacher = Teacher()
    more = ask_about_all(Plain(9), teacher, tmp_path, {})
    assert teacher.seen == 9  # a piece that was not full is made anew
    assert np.array_equal(more[:5], few)
    again = Teacher()
    assert np.array_equal(ask_about_all(Plain(7), again, tmp_path, {}), more[:7])
    assert again.seen == 0


@pytest.mark.parametrize(
    "piece",
    [
        np.ones((5, 2), np.float16),
        np.zeros((5, 3), np.float16),
        np.ones((5, 3), np.float16),
        np.full((5, 3), 3**-0.5, np.float32),
        np.full((5, 3), np.nan, np.float16),
    ],
)
def test_answers_of_another_kind_are_refused(tmp_path: Path, piece: np.ndarray) -> None:
    from safetensors.numpy import save_file

    ask_about_all(Plain(), Teacher(), tmp_path, {})
    save_file({"answers": piece}, tmp_path / "answers-00000000.safetensors")
    with pytest.raises(VidfaceError, match="not unit rows of 3 numbers"):
        ask_about_all(Plain(), Teacher(), tmp_path, {})
