"""``accelsim reproduce algorithms`` and ``convergence``: training algorithms trained and recorded. Needs PyTorch."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from accelsim.commands.shared import at_least_one, bar, names, show_as
from accelsim.errors import AccelsimError, ConfigError

if TYPE_CHECKING:
    from accelsim.capture.comparison import Settings, Trained

ALGORITHMS, CONVERGENCE = "algorithms", "convergence"
FIGURES = {
    ALGORITHMS: "training algorithms trained, and what they cost on every machine (needs PyTorch)",
    CONVERGENCE: "Figures 1, 2, 4, 7, 8, 10, 11, small: what sparsity does to convergence (trains, needs PyTorch)",
}
SETTINGS = {name: f"{name}.yaml" for name in FIGURES}


def add_options(command: argparse.ArgumentParser) -> None:
    """Their own arguments."""
    title = f"{ALGORITHMS}, {CONVERGENCE}"
    add = command.add_argument_group(title, "train; half an hour at most on two cores").add_argument
    add("--data", type=Path, metavar="PATH", help="images, as capture takes them (default: synthetic ones)")
    add("--settings", metavar="FILE", help=f"what to train (default: {', '.join(SETTINGS.values())})")
    add("--train-steps", type=at_least_one, metavar="N", help="iterations of each run, all schedules in proportion")
    add("--seeds", type=at_least_one, metavar="N", help="trainings of each run, to tell how far accuracies scatter")
    add("--machines", type=names, metavar="FILE,…", help="machines to simulate (default: all that are shipped)")
    add(
        "--runs",
        type=Path,
        metavar="DIR",
        help="keep traces and series here; those there are not trained again",
    )


def is_asked(options: argparse.Namespace) -> bool:
    """Whether training is; AccelsimError where options do not go together."""
    asked = [name for name in FIGURES if name in options.figures]
    if asked and len(options.figures) > 1:
        raise AccelsimError(f"{asked[0]}: must be asked for alone, since it trains")
    for name in ("data", "settings", "train_steps", "seeds", "machines", "runs"):
        of = ALGORITHMS if name == "machines" else " or ".join(FIGURES)
        if getattr(options, name) is not None and not {*asked} & {*of.split(" or ")}:
            raise AccelsimError(f"--{name.replace('_', '-')}: must come with {of}")
    return bool(asked)


def run(options: argparse.Namespace) -> None:
    """Train → what was asked for."""
    (what,) = options.figures
    try:
        from accelsim.capture import comparison
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise AccelsimError(f"{what} needs PyTorch: pip install 'accelsim-sparse[capture]'") from error
    from accelsim.study import export

    name, settings = _settings(options, what)
    if options.out:
        export.check_writable(options.out)
    with _runs(options) as folder:
        with bar(options, _told, description="training", total=1) as tell:
            trained = comparison.train_all(settings, folder, tell)
        told: dict[str, Any] = {
            "date": datetime.date.today().isoformat(),
            "model": settings.model + (", images halved," if settings.halve else ""),
            "data": settings.data.stem if settings.data else f"synthetic images with noise of {settings.noise:g}",
            "steps": settings.steps, "batch": settings.batch, "recorded": len(settings.record),
            "settings": name, "torch": comparison.TORCH,
            "training_s": sum(run.seconds for run in trained), "versions": export.versions(),
        }  # fmt: skip
        (_compare if what == ALGORITHMS else _converge)(options, folder, trained, told)


def _settings(options: argparse.Namespace, what: str) -> tuple[str, Settings]:
    from accelsim.capture.comparison import Settings
    from accelsim.hardware.yaml_file import read_yaml

    path, given = read_yaml(options.settings or SETTINGS[what], "configs/training")
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: must be keys and values")
    try:
        settings = Settings.read(given, data=options.data, seeds=options.seeds)
    except AccelsimError as error:
        raise ConfigError(f"{path}: {error}") from None
    return path.name, settings.shortened(options.train_steps) if options.train_steps else settings


@contextmanager
def _runs(options: argparse.Namespace) -> Iterator[Path]:
    """Where traces and series go."""
    with nullcontext(options.runs) if options.runs else TemporaryDirectory() as folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        yield Path(folder)


def _compare(options: argparse.Namespace, folder: Path, trained: list[Trained], told: dict[str, Any]) -> None:
    """Traces → tables of what each costs on which machine."""
    from accelsim.files import shipped
    from accelsim.hardware.machine import load_machine
    from accelsim.study.reproduction import algorithms, algorithms_page
    from accelsim.study.reproduction.page import as_text

    machines = [load_machine(file) for file in options.machines or sorted(shipped("configs").glob("*.yaml"))]
    with bar(options, _told, description="simulating", total=1) as tell:
        found = algorithms.measure(folder, trained, machines, tell)
    if options.out:
        algorithms_page.write(options.out, found, told)
    show_as(options, as_text(algorithms_page.blocks(found, told)), algorithms_page.report(found, told))


def _converge(options: argparse.Namespace, folder: Path, trained: list[Trained], told: dict[str, Any]) -> None:
    """Accuracies, thresholds and densities → figures."""
    from accelsim.study.reproduction import convergence_page
    from accelsim.study.reproduction.page import as_text

    curves = convergence_page.curves_of(folder, trained)
    if options.out:
        convergence_page.write(options.out, curves, told)
    show_as(options, as_text(convergence_page.blocks(curves, told)), convergence_page.report(curves, told))


def _told(done: int, whole: int) -> dict[str, Any]:
    return {"completed": done, "total": whole}
