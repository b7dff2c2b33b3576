"""Recognisers, their costs and their trainings, as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vidface.cli.text_tables import grid, render

if TYPE_CHECKING:
    from vidface.backbones.budget import Budget, BudgetLimits
    from vidface.backbones.catalogue import Description, Exported, Model
    from vidface.backbones.quantize import Quantised
    from vidface.training.results import TrainingResult


_FITS = {True: "yes", False: "no", None: "?"}


def format_models(models: Sequence[Model], limits: BudgetLimits) -> str:
    """All recognisers with a name, and what papers print of some."""
    rows = [
        (
            m.name,
            "weights" if m.kind == "weights" else "no weights",
            f"{m.budget.parameters:,}",
            f"{m.budget.mib:.2f}",
            f"{m.budget.flops / 1e6:.1f} M",
            f"{m.budget.macs / 1e6:.1f} M",
            str(m.budget.dimension),
            _FITS[m.fits],
            ", ".join(filter(None, (m.published_flops, m.published_size))),
            "" if m.lfw_accuracy is None else f"{m.lfw_accuracy:.2%}",
            m.licence or "",
            (m.sha256 or "")[:12],
        )
        for m in models
    ]
    columns = ("name", "", "parameters", "MiB", "FLOPs", "MACs", "dim", "fits", "paper says",
               "LFW", "licence", "sha256")  # fmt: skip
    notes = (
        f"fits: within {limits}",
        "FLOPs by the challenge's counter, about two a multiply-add (MAC). Of steps 1 to 4 the "
        "paper does not print the",
        "expansions; by the rule taken here they come out as counted, not as printed "
        "(vidface models show paper-step1).",
        "An architecture without weights can be shown, counted, exported and trained.",
    )
    spare = ("sha256", "licence", "MACs", "paper says", "")
    return render(grid(columns, rows, text=("", "licence", "sha256"), spare=spare), *notes)


def format_model(description: Description, limits: BudgetLimits) -> str:
    """One recogniser: its cost, what a paper prints, and its table of layers."""
    m = description.model
    lines = [m.name, *_budget_lines(m.budget, limits)]
    if m.published_flops:
        size = f", {m.published_size}" if m.published_size else ""
        lines.append(f"published   {m.published_flops} FLOPs{size}")
    if description.note:
        lines.append(f"note        {description.note}")
    lines += [f"{name:<11} {value}" for name, value in description.facts.items()]
    if m.sha256:
        lines.append(f"sha256      {m.sha256}")
    if m.licence:
        lines.append(f"licence     {m.licence}")
    if m.lfw_accuracy is not None:
        lines.append(f"LFW         {m.lfw_accuracy:.2%}")
    lines.append(f"source      {description.source}")
    if not description.rows:
        return render(*lines)
    rows = [row.cells() for row in description.rows]
    table = grid(("Input", "Operator", "t", "c", "n", "s"), rows, text=("Operator",))
    return render(*lines, "", table)


def format_cost(name: str, budget: Budget, limits: BudgetLimits) -> str:
    """The cost of a file of weights."""
    return render(name, *_budget_lines(budget, limits))


def format_exported(exported: Exported) -> str:
    """An ONNX file that was written."""
    lines = [
        f"{exported.path}: {exported.architecture}, {exported.bytes / 1e6:.1f} MB, "
        f"opset {exported.opset}, batch norm folded, batch free",
        f"sha256 {exported.sha256}",
    ]
    if exported.seed is not None:
        lines.append(f"UNTRAINED: parameters drawn from seed {exported.seed}")
    return render(*lines)


def format_quantised(quantised: Quantised) -> str:
    """An int8 file that was written, and how far it is off."""
    return render(
        f"{quantised.path}: int8, {quantised.bytes / 1e6:.1f} MB, "
        f"calibrated on {quantised.calibration_images} faces",
        f"sha256 {quantised.sha256}",
        f"cosine to float32 on {quantised.images} other faces: mean {quantised.mean_cosine:.4f}, "
        f"lowest {quantised.lowest_cosine:.4f}",
        "measure it (vidface verify) before you use it",
    )


def format_training(result: TrainingResult) -> str:
    """A row a stage, as the paper's Tables 3 and 4 have them; n/a: not at hand."""
    names = result.verifications
    columns = ("stage", "losses", *names, "loss", "best step", "steps", "faces", "images/s")
    rows = [
        (
            stage.name,
            " + ".join(stage.losses),
            *(_accuracy(stage.accuracies.get(name)) for name in names),
            "n/a" if stage.final_loss is None else f"{stage.final_loss:.4g}",
            str(stage.best_step),
            str(stage.steps),
            f"{stage.faces:,}",
            f"{stage.images_per_second:.1f}",
        )
        for stage in result.stages
    ]
    cut = [
        f"{stage.name}: cut {sum(stage.cut.values()):,} faces ("
        + ", ".join(f"{reason} {count:,}" for reason, count in stage.cut.items())
        + ")"
        for stage in result.stages
        if stage.cut
    ]
    chosen = f"best model of a stage by {result.choose_by}; accuracies in percent"
    table = grid(columns, rows, text=("losses",), spare=("images/s", "faces"), whole=("losses",))
    return render(table, chosen, *cut, f"model: {result.model}")


def _budget_lines(budget: Budget, limits: BudgetLimits) -> list[str]:
    lines = [
        f"parameters  {budget.parameters:,}",
        f"size        {budget.mib:.2f} MiB",
        f"FLOPs       {budget.flops:,} by the challenge's counter",
        f"MACs        {budget.macs:,}",
        f"dimension   {budget.dimension or 'not known'}",
        f"fits        {_FITS[limits.admit(budget)]} ({limits})",
    ]
    if budget.uncounted:
        lines.append(f"not counted {', '.join(budget.uncounted)}: the figures are lower bounds")
    return lines


def _accuracy(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.3f}"
