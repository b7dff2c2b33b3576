"""A wrong name ends with exit code 2 and lists what there is; with --json an error is JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vidface.core.redaction import redacted_text

OF_A_RUN = {
    "score": (
        "split gallery protocols fars ranks fpirs pooling method repeats same-frame convention "
        "enrolment score-device weights template runtime precision device executor color which "
        "source decoder threshold"
    ),
    "extract --force": "weights template output-name runtime executor",
    "cluster": "method pooling threshold",
    "sweep": "split gallery thresholds",
    "sweep --folds 2": "select-by",
    "sweep --report-on val": "select-on",
    "sweep --select-on val": "report-on",
    "clips": "flag status split",
    "export lfrc --out x.bin": "split",
    "export iqiyi --out x.txt": "split gallery enrolment",
}
"""Commands, and flags to which they give the value `nope`."""

OTHERS = """
score --pipeline nope | one of the shipped recipes: demo
run nope | one of the shipped recipes: demo
train nope | one of the shipped recipes: train_light
train train_progressive --device nope | known: auto, cpu, cuda
show nope --pipeline PIPELINE | the first is 'red.t'
show red.v --pipeline PIPELINE --out x.xyz | is written as .png
same red.t nope --pipeline PIPELINE | no such file or folder, and no clip of run
same red.t red.v --pipeline PIPELINE --far nope | a rate in (0, 1]
same red.t red.v --pipeline PIPELINE --split nope | there: train, val
same red.t red.v --pipeline PIPELINE --picture x.xyz | is written as .png
who nope --pipeline PIPELINE | no such file or folder
who red.v --pipeline PIPELINE --gallery nope | there: train, val
who red.v --pipeline PIPELINE --fpir nope | a rate in (0, 1]
plot clip red.v RUN --out x.xyz | known: .svg
forget nope --pipeline PIPELINE | unknown person 'nope' (known: red, green, blue)
forget --clip rad.t --pipeline PIPELINE | unknown clip 'rad.t' (known: red.t,
plot nope | No such command
models show nope | known: paper
models export nope x.onnx | known: paper
models export paper x.onnx --color nope | known: rgb, bgr
verify nope SET | known: sface
verify sface SET --runtime nope | known: auto
import lfrc SET --split nope | known: train
import iqiyi nope --split nope | known: train
import ijb LIST --root SET --split nope | known: train
import ijb LIST --root SET --order nope | known: auto
score --pairs LIST --templates LIST --order nope --pipeline PIPELINE | known: auto
compare RUN RUN --split nope | there: train, val
scroe | No such command
"""


def test_wrong_names_exit_with_2(vidface, colour_pipeline: Path, tmp_path: Path) -> None:
    for stage in ("extract", "cluster"):
        assert vidface(stage, "--pipeline", colour_pipeline).code == 0
    (tmp_path / "list.txt").write_text("1 2 red/val/0.png\n1 3 red/val/1.png\n", encoding="utf-8")
    places = {"PIPELINE": colour_pipeline, "RUN": "run", "SET": "set", "LIST": "list.txt"}
    for command, flags in OF_A_RUN.items():
        for flag in flags.split():
            words = [*command.split(), f"--{flag}", "nope", "--pipeline", colour_pipeline]
            done = vidface(*words, "--json")
            assert done.code == 2, (words, done.err)
            assert "nope" in error_of(done)["message"]
    for line in OTHERS.strip().splitlines():
        command, _, message = line.partition(" | ")
        done = vidface(*(places.get(word, word) for word in command.split()))
        assert done.code == 2, (line, done.err)
        assert message in done.err


def error_of(done) -> dict:
    """The error on the last line of standard error; notes may stand before it."""
    assert done.out == ""
    document = json.loads(done.err.splitlines()[-1])
    assert list(document) == ["error"]
    assert document["error"]["exit_code"] == done.code
    return document["error"]


def test_an_error_as_json(vidface, colour_pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = vidface("score", "--pipeline", colour_pipeline, "--json")
    plain = vidface("score", "--pipeline", colour_pipeline)
    assert error_of(done)["kind"] == "error"
    assert plain.err == f"vidface: error: {error_of(done)['message']}\n"
    done = vidface("score", "--treshold", "0.4", "--json")
    assert error_of(done)["message"].startswith("No such option '--treshold'")
    assert error_of(done)["kind"] == "usage"
    assert error_of(vidface("models", "show", "nö\u202e", "--json"))["kind"] == "usage"

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vidface.settings.initialise.initialise", stop)
    assert error_of(vidface("init", ".", "--json"))["kind"] == "interrupted"
    secret = "https://user:hunter2@host/x.toml"
    assert redacted_text(secret) in error_of(vidface("run", secret, "--json"))["message"]
