"""The figures about convergence as text for a terminal, as a Markdown page, as JSON and as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from accelsim.files import staged
from accelsim.study import manifest
from accelsim.study.json_file import to_json
from accelsim.study.reproduction.algorithms import Trained
from accelsim.study.reproduction.convergence import Curves, figures, overview
from accelsim.study.reproduction.page import Block, markdown
from accelsim.workload.series import Series

INTRODUCTION = (
    "`accelsim reproduce convergence` made this page on {date}: {model} on {data}, {steps} steps of {batch} images for "
    "each of {runs} runs, {seeds}, {training_s:.0f} CPU seconds of training with PyTorch {torch}; settings are "
    "`{settings}`. The paper trained ResNet-18, VGG-16 and DenseNet-121 on CIFAR-100 for 150 epochs, and ResNet-18 on "
    "ImageNet for Figure 11; its curves have no numbers, so that what it concludes from them is compared."
)
RULES = (
    "Verdicts are computed, none is typed. “As in the paper”: one run ends above the other by more than twice the "
    "standard error of their difference, or a number is at most the bound beside it. Without what a seed does to all "
    "runs an accuracy scatters by {scatter:.1f} points. “Not told apart”: less than that, in either "
    "direction. “Contrary to the paper”: as far in the other direction, or above the bound.",
    "What to expect at this size was written before the runs were trained. A verdict here is of this network, this "
    "data and {epochs:.0f} epochs, and not of the paper's; figure 5 and the tables of accuracy need its training.",
)
ONE_SEED = (
    "With one seed nothing is told apart: every difference counts as above or below. Train with --seeds 3 or more."
)
CLAIMS = ("claim", "ours", "as in the paper if", "verdict")


def curves_of(folder: Path, trained: Iterable[Trained]) -> Curves:
    """What training left: accuracies, and of the first seed's series thresholds and densities.

    Parameters
    ----------
    folder : Path
        With LABEL.series of each.
    trained : iterable of Trained
    """
    accuracies: dict[str, tuple[dict[int, float], ...]] = {}
    for one in trained:
        accuracies[one.label] = (*accuracies.get(one.label, ()), dict(one.accuracy))
    first = Series.open(folder / f"{next(iter(accuracies))}.series")
    more: dict[str, Any] = {"epoch": first.header["steps_per_epoch"]}
    if "fig7-unmasked90" in accuracies:
        more["thresholds"] = _noted(Series.open(folder / "fig7-unmasked90.series"), "threshold ")
    if "fig10-period90" in accuracies:
        series = Series.open(folder / "fig10-period90.series")
        zeros = {"weight": _zeros(series, "weight"), "activation": _zeros(series, "saved_activation")}
        more |= {"zeros": zeros, "period": series.header["top_k_period"], "target": series.header["sparsity"]}
    return Curves(accuracies, **more)


def _noted(series: Series, prefix: str) -> dict[str, tuple[float, ...]]:
    names = [name for name in series.steps[0].notes if name.startswith(prefix)]
    return {name.removeprefix(prefix): tuple(step.notes[name] for step in series.steps) for name in names}


def _zeros(series: Series, tensor: str) -> tuple[float, ...]:
    """Mean over the layers that Top-K selects in: all but the first, which is left dense."""
    layers = [layer for layer, name in series.steps[0].densities if name == tensor][1:]
    return tuple(1 - sum(step.densities[layer, tensor] for layer in layers) / len(layers) for step in series.steps)


def blocks(curves: Curves, told: dict[str, Any]) -> Iterator[Block]:
    """The page. ``told`` says what was trained, on what, when and with which versions."""
    shown = list(figures(curves))
    many = f"{curves.seeds} times each with other seeds" if curves.seeds > 1 else "once each"
    yield "heading", "What sparsity does to convergence"
    yield "paragraph", INTRODUCTION.format(**told, runs=len(curves.accuracies), seeds=many)
    for text in RULES:
        yield "bullet", text.format(scatter=100 * curves.scatter, epochs=told["steps"] / curves.epoch)
    if curves.seeds == 1:
        yield "bullet", ONE_SEED
    yield "table", ("", *overview(shown))
    yield "picture", ("Each figure from the runs", "convergence.png")
    for figure in shown:
        yield "subheading", figure.title
        yield "paragraph", f"The paper: {figure.paper} At this size: {figure.size}"
        rows = [(claim.what, claim.ours, claim.rule, claim.verdict) for claim in figure.claims]
        yield "table", (f"Verdict: {figure.verdict}", CLAIMS, rows)
    yield "subheading", "All runs"
    yield "table", ("", *_runs(curves))


def _runs(curves: Curves) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    steps = sorted(next(iter(curves.accuracies.values()))[0])
    shown = sorted({steps[round(i * (len(steps) - 1) / 3)] for i in range(4)})
    rows = []
    for run, seeds in curves.accuracies.items():
        means = [f"{100 * sum(of[step] for of in seeds) / len(seeds):.1f} %" for step in shown]
        rows.append((run, *means, ", ".join(f"{100 * of[steps[-1]]:.1f}" for of in seeds)))
    return ("run", *(f"step {step}" for step in shown), "at the end, by seed"), rows


def report(curves: Curves, told: dict[str, Any]) -> dict[str, Any]:
    """Plain data, which ``page`` makes the page of again."""
    verdicts = {
        figure.name: {"verdict": figure.verdict, "claims": [vars(claim) for claim in figure.claims]}
        for figure in figures(curves)
    }
    return {"told": told, "figures": verdicts, "curves": curves.as_dict()}


def page(data: dict[str, Any]) -> str:
    """The page in Markdown, from a report."""
    return markdown(blocks(Curves.of(data["curves"]), data["told"]))


def write(folder: Path, curves: Curves, told: dict[str, Any]) -> None:
    """Writes convergence.md, .json and pictures into a folder, all or none. Raises OutputError."""
    from accelsim.study.reproduction.convergence_plot import draw

    with staged(folder) as stage:
        data = report(curves, told)
        (stage / "convergence.md").write_text(page(data), encoding="utf-8")
        (stage / "convergence.json").write_text(to_json(data, indent=None), encoding="utf-8")
        draw(stage, curves)
        manifest.write(stage)
