"""``accelsim reproduce algorithms``: training algorithms trained, recorded and simulated. Needs PyTorch."""

from __future__ import annotations

import argparse
import datetime
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from accelsim.commands.shared import at_least_one, bar, names, show_as
from accelsim.errors import AccelsimError, ConfigError

NAME, WHAT = "algorithms", "training algorithms trained, and what they cost on every machine (needs PyTorch)"
SETTINGS = "algorithms.yaml"


def add_options(command: argparse.ArgumentParser) -> None:
    """Its own arguments."""
    add = command.add_argument_group(NAME, "trains; half an hour at most on two cores").add_argument
    add("--data", type=Path, metavar="PATH", help="images, as capture takes them (default: synthetic ones)")
    add("--settings", default=SETTINGS, metavar="FILE", help=f"what to train ({SETTINGS})")
    add("--train-steps", type=at_least_one, metavar="N", help="iterations of each run, all schedules in proportion")
    add("--machines", type=names, metavar="FILE,…", help="machines to simulate (default: all that are shipped)")
    add(
        "--runs",
        type=Path,
        metavar="DIR",
        help="keep traces and series here; those there are not trained again",
    )


def is_asked(options: argparse.Namespace) -> bool:
    """Whether training is; AccelsimError where options do not go together."""
    if NAME in options.figures:
        if options.figures != [NAME]:
            raise AccelsimError(f"{NAME}: must be asked for alone, since it trains")
        return True
    for name in ("data", "train_steps", "machines", "runs"):
        if getattr(options, name) is not None:
            raise AccelsimError(f"--{name.replace('_', '-')}: must come with {NAME}")
    return False


def compare(options: argparse.Namespace) -> None:
    """Train → traces → tables."""
    try:
        from accelsim.capture import comparison
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise AccelsimError(f"{NAME} needs PyTorch: pip install 'accelsim-sparse[capture]'") from error
    from accelsim.files import shipped
    from accelsim.hardware.machine import load_machine
    from accelsim.hardware.yaml_file import read_yaml
    from accelsim.study import export
    from accelsim.study.reproduction import algorithms, algorithms_page

    path, given = read_yaml(options.settings, "configs/training")
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: must be keys and values")
    try:
        settings = comparison.Settings.read(given, data=options.data)
    except AccelsimError as error:
        raise ConfigError(f"{path}: {error}") from None
    if options.train_steps:
        settings = settings.shortened(options.train_steps)
    if options.out:
        export.check_writable(options.out)
    with nullcontext(options.runs) if options.runs else TemporaryDirectory() as folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with bar(options, _told, description="training", total=1) as tell:
            trained = comparison.train_all(settings, Path(folder), tell)
        machines = [load_machine(file) for file in options.machines or sorted(shipped("configs").glob("*.yaml"))]
        with bar(options, _told, description="simulating", total=1) as tell:
            found = algorithms.measure(Path(folder), trained, machines, tell)
    told: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "model": settings.model + (", images halved," if settings.halve else ""),
        "data": settings.data.stem if settings.data else "synthetic images",
        "steps": settings.steps, "batch": settings.batch, "recorded": len(settings.record), "seed": settings.seed,
        "settings": path.name, "torch": comparison.TORCH,
        "training_s": sum(run.seconds for run in trained), "versions": export.versions(),
    }  # fmt: skip
    if options.out:
        algorithms_page.write(options.out, found, told)
    show_as(options, algorithms_page.text(found, told), algorithms_page.report(found, told))


def _told(done: int, whole: int) -> dict[str, Any]:
    return {"completed": done, "total": whole}
