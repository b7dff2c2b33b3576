"""`vidface models`: the list, one in full, a file's cost, export; in Python and as commands."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.conftest import write_colour_network
from vidface.backbones.architectures import ARCHITECTURES, StageRow, find_architecture
from vidface.backbones.budget import Budget, BudgetLimits, count_graph, count_module
from vidface.backbones.catalogue import (
    Exported,
    Model,
    count_file,
    describe,
    export_architecture,
    list_models,
)
from vidface.backbones.graphs import read_onnx
from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.weights import WEIGHTS
from vidface.core.errors import VidfaceError

# The paper's Table 1 as printed, but in the last line it prints 7*7*256 (see its note).
TABLE_1 = """
112*112*3 Conv  -   24  1  2
56*56*24  Block 56  24  2  1
56*56*24  Block 116 56  1  2
28*28*56  Block 116 56  6  1
28*28*56  Block 248 124 1  2
14*14*124 Block 248 124 15 1
14*14*124 Block 512 256 1  2
7*7*256   Block 256 256 24 1
7*7*256   Conv  -   512 1  1
7*7*512   GDC   -   282 1  1
"""
ROWS = [tuple(line.split()) for line in TABLE_1.splitlines() if line]

TINY = "y1-x0.25"
FED = Preprocessing("bgr", 127.5, 128.0)


@pytest.fixture(scope="module")
def listed() -> list[Model]:
    return list_models()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A tiny network with untrained weights, seed 3."""
    out = tmp_path_factory.mktemp("exported") / "tiny.onnx"
    return export_architecture(TINY, out, preprocessing=FED, seed=3)


def one_line(done, code: int = 1) -> str:
    """The message of a run that failed as it should: one line on standard error."""
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("vidface: error: ")
    assert done.err.count("\n") == 1
    assert "internal error" not in done.err
    return done.err


# The list


def test_all_recognisers_are_listed_weights_first(listed: list[Model]) -> None:
    recognisers = [name for name, record in WEIGHTS.items() if record.kind == "recogniser"]
    assert [model.name for model in listed] == [*recognisers, *ARCHITECTURES]
    assert "sface" in recognisers
    assert "yunet" not in recognisers  # a detector
    kinds = {model.kind for model in listed[: len(recognisers)]}
    assert (kinds, {model.kind for model in listed[len(recognisers) :]}) == (
        {"weights"}, {"architecture"})  # fmt: skip
    fits = {model.name: model.fits for model in listed}
    assert (
        fits
        | {
            "sface": False,  # 1.15 GFLOPs, 36.9 MiB
            "light": True,
            "paper": True,
            "y2": True,
            "paper-step1": False,  # 1.077, 1.042 and 1.002 GFLOPs by the rule
            "paper-step2": False,
            "paper-step3": False,
            "paper-step4": True,
            "y1": True,
            "mobilefacenet": True,
        }
        == fits
    )
    json.dumps([model.to_dict() for model in listed], allow_nan=False)


def test_weights_and_architectures_in_the_list(listed: list[Model]) -> None:
    models = {model.name: model for model in listed}
    sface, record = models["sface"], WEIGHTS["sface"]
    assert (sface.licence, sface.sha256, sface.lfw_accuracy) == (
        "Apache-2.0", record.sha256, record.lfw_accuracy)  # fmt: skip
    assert sface.budget == record.budget
    assert (sface.published_flops, sface.published_size) == (None, None)
    paper = models["paper"]
    assert (paper.licence, paper.sha256, paper.lfw_accuracy) == (None, None, None)
    assert (paper.published_flops, paper.published_size) == ("976.6M", "20M")
    assert paper.budget.flops == 976_588_780
    assert (models["y1"].published_flops, models["y1"].published_size) == ("439.8M", None)
    assert models["mobilefacenet"].published_flops is None
    assert paper.to_dict() == {
        "name": "paper",
        "kind": "architecture",
        "parameters": 5_140_270,
        "mib": paper.budget.mib,
        "lfrc_flops": 976_588_780,
        "macs": 490_225_744,
        "dimension": 282,
        "uncounted": [],
        "fits": True,
        "licence": None,
        "sha256": None,
        "lfw_accuracy": None,
        "published_flops": "976.6M",
        "published_size": "20M",
    }


def test_limits_are_inside_when_equal() -> None:
    limits = BudgetLimits(1000, 2.0, 4)
    assert limits.admit(Budget(1, 2.0, 1000, 500, 4)) is True
    for over in (Budget(1, 2.0, 1001, 1, 4), Budget(1, 2.1, 1000, 1, 4), Budget(1, 2.0, 1, 1, 5)):
        assert limits.admit(over) is False
    assert limits.admit(Budget(1, 2.0, 1000, 500, 4, ("LSTM (1)",))) is None
    assert str(BudgetLimits()) == "1 GFLOPs, 20 MiB, 512-d"
    assert str(BudgetLimits(5e8, 7.5, 128)) == "0.5 GFLOPs, 7.5 MiB, 128-d"


# One in full


def test_the_paper_s_table_1_from_the_module_itself() -> None:
    found = describe("paper")
    assert [row.cells() for row in found.rows] == ROWS
    assert "7*7*256" in found.note  # what the paper prints as GDC's input
    assert "Table 1" in found.source
    assert found.model.budget.flops == 976_588_780
    assert describe("paper-step5") == found
    first, second, *_, last = found.to_dict()["table"]
    assert first == {"input_shape": (112, 112, 3), "operator": "Conv", "t": None, "c": 24, "n": 1,
                     "s": 2}  # fmt: skip
    assert (second["t"], last["input_shape"], last["c"]) == (56, (7, 7, 512), 282)


def test_tables_of_other_networks() -> None:
    y1 = [row.cells() for row in describe("y1-x0.25").rows]
    assert y1[0] == ("112*112*3", "Conv", "-", "16", "1", "2")
    assert y1[1] == ("56*56*16", "Depthwise", "-", "16", "1", "1")
    assert y1[2] == ("56*56*16", "Block", "32", "16", "1", "2")
    assert y1[-1] == ("7*7*128", "GDC", "-", "128", "1", "1")
    other = describe("mobilefacenet")
    assert other.rows == ()  # not of the paper's family
    assert other.model.budget == count_module(find_architecture("mobilefacenet").build_empty())
    sface = describe("sface")
    assert sface.rows == ()
    assert sface.facts["fed"] == "112x112 rgb (x − 0) / 1"
    assert sface.facts["file"] == WEIGHTS["sface"].file
    assert sface.model.sha256 == WEIGHTS["sface"].sha256


def test_the_first_block_of_a_row_has_its_stride() -> None:
    """So the table shows it of stages of several blocks too; the module stays as it was."""
    rows = (StageRow(10, 8, 3, 2), StageRow(None, 8, 2, 2), StageRow(12, 6, 1, 2))
    module = replace(find_architecture("y2-x0.1"), rows=rows).build().train()
    table = [row.cells() for row in module.layer_table()]
    assert table == [
        ("112*112*3", "Conv", "-", "8", "1", "2"),
        ("56*56*8", "Block", "10", "8", "3", "2"),
        ("28*28*8", "Depthwise", "-", "8", "2", "2"),
        ("14*14*8", "Block", "12", "6", "1", "2"),
        ("7*7*6", "Conv", "-", "52", "1", "1"),
        ("7*7*52", "GDC", "-", "256", "1", "1"),
    ]
    assert module.training
    assert not module.stem._forward_hooks
    assert not find_architecture("mobilefacenet").has_layer_table


def test_limits_of_a_description() -> None:
    budget = describe(TINY).model.budget
    exact = BudgetLimits(budget.flops, budget.mib, budget.dimension or 0)
    assert describe(TINY, exact).model.fits is True
    assert describe(TINY, BudgetLimits(budget.flops - 1)).model.fits is False


@pytest.mark.parametrize("name", ["nosuch", "yunet", "", "paper-x9"])
def test_names_that_describe_nothing(name: str) -> None:
    """A detector's name is none either: what it costs is not that of a face."""
    message = "width 9 must lie in" if name == "paper-x9" else f"no architecture named '{name}'"
    with pytest.raises(VidfaceError, match=message):
        describe(name)


# Counting a file


@pytest.mark.slow
def test_any_recogniser_s_file_is_counted(tmp_path: Path, data: Path, exported: Exported) -> None:
    colour = count_file(write_colour_network(tmp_path / "colour.onnx"))
    assert colour == Budget(0, 0.0, 0, 0, 3)
    assert count_file(exported.path) == count_graph(read_onnx(exported.path), "n")
    # A file of bare parameters is counted as the network that they fit.
    state = count_file(data / "weights" / "mobilefacenet_foamliu.pt")
    assert state == count_module(find_architecture("mobilefacenet").build_empty())


def test_files_that_are_no_recogniser_s(tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match=r"nosuch\.onnx: no such file"):
        count_file(tmp_path / "nosuch.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(VidfaceError, match=r"folder\.onnx: no such file"):
        count_file(tmp_path / "folder.onnx")
    for name, content in (("text.onnx", b"this is text\n" * 20), ("empty.onnx", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(VidfaceError, match=f"{name}: not an ONNX file, or cut off"):
            count_file(tmp_path / name)
    (tmp_path / "notes.txt").write_text("this is text")
    with pytest.raises(VidfaceError, match=r"notes\.txt: unknown kind of file"):
        count_file(tmp_path / "notes.txt")
    path = write_colour_network(tmp_path / "grey.onnx")
    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, str(path))
    with pytest.raises(VidfaceError, match="a recogniser takes"):
        count_file(path)


# Exporting


def test_an_exported_file_says_what_it_is(exported: Exported) -> None:
    content = exported.path.read_bytes()
    assert exported.bytes == len(content)
    assert exported.sha256 == hashlib.sha256(content).hexdigest()
    assert (exported.architecture, exported.seed, exported.opset) == (TINY, 3, 20)
    assert exported.to_dict()["path"] == str(exported.path)
    model = onnx.load(str(exported.path))
    onnx.checker.check_model(model, full_check=True)
    [opset] = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    assert opset == 20
    [image], [vector] = model.graph.input, model.graph.output
    batch, *rest = image.type.tensor_type.shape.dim
    assert batch.dim_param  # a name, not a number
    assert not batch.HasField("dim_value")
    assert [dim.dim_value for dim in rest] == [3, 112, 112]
    first, second = vector.type.tensor_type.shape.dim
    assert (first.dim_param, second.dim_value) == (batch.dim_param, 128)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    [entry] = model.metadata_props
    assert entry.key == "vidface"
    assert json.loads(entry.value) == {
        "architecture": TINY,
        "preprocessing": {"color": "bgr", "mean": 127.5, "std": 128.0, "size": 112},
        "untrained_seed": 3,
    }


@pytest.mark.parametrize("batch", [1, 5])
def test_an_exported_file_gives_the_module_s_embeddings(exported: Exported, batch: int) -> None:
    import onnxruntime
    import torch

    images = np.random.default_rng(batch).uniform(-1, 1, (batch, 3, 112, 112)).astype(np.float32)
    with torch.inference_mode():
        module = find_architecture(TINY).build(seed=3).eval()
        wanted = module(torch.from_numpy(images)).numpy()
        other = find_architecture(TINY).build(seed=4).eval()(torch.from_numpy(images)).numpy()
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    [found] = session.run(None, {session.get_inputs()[0].name: images})
    assert found.shape == (batch, 128)

    def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    assert cosines(found, wanted).min() >= 0.99999
    assert np.allclose(np.linalg.norm(found, axis=1), np.linalg.norm(wanted, axis=1), rtol=1e-3)
    assert cosines(found, other).max() < 0.9  # another seed's


def test_an_exported_file_costs_what_its_module_costs(exported: Exported) -> None:
    """Batch norm folded: as many multiply-adds, fewer parameters, perhaps a bias a channel (the
    exporter leaves those of untrained ones out, which are zero).
    """
    file = count_file(exported.path)
    module = count_module(find_architecture(TINY).build_empty())
    assert (file.macs, file.dimension, file.uncounted) == (module.macs, 128, ())
    assert module.flops <= file.flops < module.flops * 1.02
    assert file.parameters < module.parameters


@pytest.mark.slow
def test_weights_that_are_exported(tmp_path: Path) -> None:
    """A file's parameters and its own word on preprocessing; given ones would come first."""
    import torch

    from vidface.backbones.files import save_safetensors

    module = find_architecture("y2-x0.1").build(seed=9).eval()
    path, out = tmp_path / "w.safetensors", tmp_path / "deep" / "out.onnx"
    save_safetensors(module, path, "y2-x0.1", FED, licence="MIT")
    done = export_architecture("y2-x0.1", out, weights=str(path))
    assert (done.path, done.seed, done.architecture) == (out, None, "y2-x0.1")
    model = onnx.load(str(out))
    said = json.loads(model.metadata_props[0].value)
    assert said == {
        "architecture": "y2-x0.1",
        "preprocessing": FED.to_dict(),
        "licence": "MIT",
        "made_from_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    import onnxruntime

    image = np.random.default_rng(0).uniform(-1, 1, (1, 3, 112, 112)).astype(np.float32)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    [found] = session.run(None, {session.get_inputs()[0].name: image})
    with torch.inference_mode():
        wanted = module(torch.from_numpy(image)).numpy()
    assert np.allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_what_can_t_be_exported(tmp_path: Path, exported: Exported) -> None:
    """Told before anything is built or written."""
    out = tmp_path / "out.onnx"
    for name, path, weights, message in (
        (TINY, tmp_path / "out.pt", None, r"out\.pt: an exported network's file ends in \.onnx"),
        (TINY, tmp_path / "out", None, r"out: an exported network's file ends in \.onnx"),
        ("nosuch", out, None, "no architecture named 'nosuch'"),
        ("sface", out, None, "no architecture named 'sface'"),
        (TINY, out, "nosuch.pt", r"weights nosuch\.pt: no such file"),
        (TINY, out, str(exported.path), r"tiny\.onnx: are ONNX already"),
    ):
        with pytest.raises(VidfaceError, match=message):
            export_architecture(name, path, weights=weights)
    assert list(tmp_path.iterdir()) == []


# The commands


def test_models_lists(vidface, listed: list[Model], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[BudgetLimits] = []
    monkeypatch.setattr(
        "vidface.backbones.catalogue.list_models", lambda limits: asked.append(limits) or listed
    )
    done = vidface("models")
    assert asked == [BudgetLimits(1e9, 20.0, 512)]
    assert (done.code, done.err) == (0, "")
    lines = {line.split()[0]: line for line in done.out.splitlines() if line.split()}
    for model in listed:
        assert f"{model.budget.parameters:,}" in lines[model.name]
    paper = lines["paper"].split()
    assert paper == ["paper", "no", "weights", "5,140,270", "19.86", "976.6", "M", "282", "yes"]
    sface = lines["sface"].split()
    assert sface == ["sface", "weights", "9,642,882", "36.88", "1145.1", "M", "128", "no",
                     f"{WEIGHTS['sface'].lfw_accuracy:.2%}"]  # fmt: skip
    assert max(len(line) for line in lines.values() if line.startswith(" ")) <= 80
    assert "left out: sha256, licence, MACs, paper says (--json has all)" in done.out
    assert "fits: within 1 GFLOPs, 20 MiB, 512-d" in done.out
    assert "\x1b" not in done.out


@pytest.mark.slow
def test_models_as_json_within_other_limits(vidface, listed: list[Model]) -> None:
    done = vidface("models", "--json", "--max-flops", "5e8")
    assert (done.code, done.err) == (0, "")
    found = done.json["models"]
    fits = {each["name"]: each["fits"] for each in found}
    assert {name for name, fit in fits.items() if fit} >= {"y1", "mobilefacenet"}
    assert not any(fits[name] for name in ("paper", "y2", "paper-step4", "sface"))
    listed_figures = [model.to_dict() | {"fits": None} for model in listed]
    assert [each | {"fits": None} for each in found] == listed_figures


def test_models_show(vidface) -> None:
    done = vidface("models", "show", "paper")
    assert (done.code, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines()]
    assert ["Input", "Operator", "t", "c", "n", "s"] in lines
    assert [tuple(line) for line in lines if line and "*" in line[0]] == ROWS
    for text in ("976,588,780", "19.86 MiB", "490,225,744", "fits        yes", "976.6M FLOPs, 20M",
                 "it prints 7*7*256 as GDC's input"):  # fmt: skip
        assert text in done.out
    shown = vidface("models", "show", "y2", "--json", "--max-flops", 933_336_693).json
    assert (shown["lfrc_flops"], shown["fits"]) == (933_336_694, False)
    assert len(shown["table"]) == 10
    weights = vidface("models", "show", "sface")
    assert "112x112 rgb (x − 0) / 1" in weights.out
    assert WEIGHTS["sface"].sha256 in weights.out


def test_models_show_of_an_unknown_name(vidface) -> None:
    message = one_line(vidface("models", "show", "nosuch"), code=2)
    assert "no architecture named 'nosuch' (known: paper, y2, " in message
    assert "Traceback" in vidface("models", "show", "nosuch", "--debug").err


def test_models_count(vidface, exported: Exported, tmp_path: Path) -> None:
    budget = count_file(exported.path)
    done = vidface("models", "count", exported.path, "--json")
    assert done.json == {"file": str(exported.path), **budget.to_dict(), "fits": True}
    below = vidface("models", "count", exported.path, "--max-flops", budget.flops - 1)
    assert "fits        no" in below.out
    exact = vidface("models", "count", exported.path, "--max-flops", budget.flops)
    assert "fits        yes" in exact.out
    assert f"{budget.flops:,} by the challenge's counter" in exact.out


def test_models_count_names_what_it_cannot_count(vidface, tmp_path: Path) -> None:
    path = write_colour_network(tmp_path / "odd.onnx")
    model = onnx.load(str(path))
    einsum = onnx.helper.make_node("Einsum", ["vector"], ["turned"], equation="nd->nd")
    model.graph.node.append(einsum)
    model.graph.output[0].name = "turned"
    onnx.save(model, str(path))
    done = vidface("models", "count", path)
    assert "not counted Einsum (1): the figures are lower bounds" in done.out
    assert "fits        ?" in done.out
    found = vidface("models", "count", path, "--json").json
    assert (found["uncounted"], found["fits"]) == (["Einsum (1)"], None)


def test_models_count_of_what_is_no_recogniser(vidface, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("this is text\n" * 20)
    (tmp_path / "text.txt").write_text("this is text\n" * 20)
    assert "text.onnx: not an ONNX file, or cut off" in one_line(
        vidface("models", "count", "text.onnx")
    )
    assert "text.txt: unknown kind of file" in one_line(vidface("models", "count", "text.txt"))
    assert "nosuch.onnx: no such file" in one_line(vidface("models", "count", "nosuch.onnx"))


def test_models_export_to_another_kind_of_file(vidface, tmp_path: Path) -> None:
    message = one_line(vidface("models", "export", TINY, "tiny.pt"))
    assert "tiny.pt: an exported network's file ends in .onnx" in message
    assert list(tmp_path.iterdir()) == []


def test_models_export_of_weights_that_do_not_fit(vidface, tmp_path: Path, data: Path) -> None:
    weights = data / "weights" / "mobilefacenet_foamliu.pt"
    message = one_line(vidface("models", "export", "paper", "out.onnx", "--weights", weights))
    assert f"{weights}: not of architecture 'paper': " in message
    assert "parameters are missing" in message
    # the same names, other widths
    from vidface.backbones.files import save_safetensors

    narrow = tmp_path / "narrow.safetensors"
    save_safetensors(find_architecture("y2-x0.1").build(), narrow, "y2-x0.1", FED)
    message = one_line(vidface("models", "export", "y2", "out.onnx", "--weights", narrow))
    assert "'stem.conv.weight' is (8, 3, 3, 3), not (64, 3, 3, 3)" in message
    assert list(tmp_path.iterdir()) == [narrow]


def test_models_export(vidface, exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command hands on; the export itself is tested above."""
    asked: list[tuple] = []

    def stand_in(name: str, out: Path, **given: object) -> Exported:
        asked.append((name, out, given))
        return exported

    monkeypatch.setattr("vidface.backbones.catalogue.export_architecture", stand_in)
    flags = ("--seed", 3, "--color", "bgr", "--std", 128)
    done = vidface("models", "export", TINY, "out.onnx", *flags)
    given = {"weights": None, "preprocessing": FED, "seed": 3}
    assert asked == [(TINY, Path("out.onnx"), given)]
    assert f"{exported.path}: {TINY}, " in done.out
    assert "opset 20" in done.out
    assert "UNTRAINED: parameters drawn from seed 3" in done.out
    assert vidface("models", "export", TINY, "out.onnx", "--json").json == exported.to_dict()
    assert asked[1][2] == {"weights": None, "preprocessing": None, "seed": 0}


def test_options_of_the_list_go_behind_a_subcommand(vidface) -> None:
    """In front of it they would be passed over in silence."""
    done = vidface("models", "--max-flops", "5e8", "show", "y1")
    assert done.code == 2
    assert "options go behind 'show'" in done.err
    assert "fits        yes" in vidface("models", "show", "y1", "--max-flops", "5e8").out
    assert "fits        no" in vidface("models", "show", "y1", "--max-flops", "4e8").out
    assert vidface("models", "export", "y1", "a.onnx", "--seed", 2**64).code == 2
