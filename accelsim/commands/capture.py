"""``accelsim capture``: SWAT training, recorded. Needs PyTorch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from accelsim.commands.shared import Commands, bar, is_terminal, names, settings_of, show
from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from accelsim.capture.train import Progress

Number = TypeVar("Number", int, float)
SWAT = ("distribution", "structure", "activation_sparsity", "activation_scope", "period")  # of its options


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Adds the command and its arguments."""
    command = commands.add_parser(
        "capture",
        parents=[common],
        help="train a model with SWAT and record a trace of it (needs PyTorch: pip install 'accelsim-sparse[capture]')",
        description="Trains a model with SWAT for some steps, for each sparsity from the same weights, and records "
        "what chosen steps multiply. Checkpoints are recorded as they are, forward and backward without an update, "
        "unless a learning rate or the like is given. Ctrl-C, SIGTERM and SIGHUP leave a valid trace of the steps "
        "recorded so far.",
    )
    add = command.add_argument
    add("--model", required=True, metavar="NAME", help="e.g. resnet50, cifar_resnet18, or your own module:factory")
    add("--out", required=True, type=Path, metavar="FILE", help="the trace (.npz)")
    add("--force", action="store_true", help="replace the trace if it exists")
    add("--data", type=Path, metavar="PATH", help="images by class, CIFAR-10/100, or .npz (default: synthetic images)")
    add("--weights", type=_paths, default=(), metavar="FILE,…",
        help="checkpoint for all sparsities, one for each, or several to compare at one; not updated unless a "
        "--learning-rate or another option of training is given")  # fmt: skip
    add("--frozen", action=argparse.BooleanOptionalAction,
        help="forward and backward without an update (default: with --weights and no option of training)")  # fmt: skip
    add("--sparsity", dest="sparsities", type=_numbers(float), metavar="S,…",
        help="of Top-K, e.g. 0,0.8,0.9 (0.8; 0 for weights that are not updated)")  # fmt: skip
    add("--steps", type=int, metavar="N", help="iterations of each run (10; 1 for weights that are not updated)")
    add("--batch", type=int, default=32, metavar="N", help="samples of an iteration (32)")
    add("--record", type=_numbers(int), metavar="STEP,…", help="iterations to record, from 0 (default: the last)")
    add("--samples", type=int, default=1, metavar="N", help="samples of the batch to keep (1)")
    add("--places", type=int, metavar="N", help="tokens or places of a map of each to keep, at most (default: all)")
    kinds = ("as_trained", "int8", "int16", "bf16")  # what accelsim.capture.quantise has
    add("--values", nargs="?", const="as_trained", default=False, choices=kinds, metavar="KIND",
        help="keep numbers instead of masks: as_trained (the default), int8, int16 or bf16")  # fmt: skip
    add("--scales", choices=("tensor", "channel"), default="tensor", help="of int8 and int16 weights (tensor)")
    add("--precision", default="fp32", metavar="NAME", help="fp32 or bf16")
    add("--device", metavar="NAME", help="cpu, cuda, … (default: cuda where there is one)")
    add("--seed", type=int, default=0, metavar="N", help="of weights, batches and synthetic images (0)")
    add("--num-classes", type=int, metavar="N", help="where the data does not say")
    add("--image-size", type=int, metavar="N", help="height and width of the images of a folder, or synthetic ones")
    add("--augment", action="store_true", help="random crops and flips")
    add("--network", metavar="NAME", help="name of the network in the trace (default: the model's)")
    add("--dataset", metavar="NAME", help="name of the data set in the trace (default: that of its folder)")
    add("--algorithm", default="swat", metavar="NAME",
        help="swat (the default), saw, meprop, gmp, set, dsr, snfs, rigl, dst, dsg, sr-ste, …")  # fmt: skip
    add("--option", dest="settings", action="append", default=[], metavar="KEY=VALUE",
        help="of that algorithm, e.g. every=50; repeatable")  # fmt: skip
    add("--distribution", metavar="NAME", help="of the sparsity over layers: uniform, erk, momentum")
    add("--structure", metavar="NAME", help="unstructured, or channel")
    add("--activation-sparsity", type=float, metavar="S", help="where it differs from the weights'")
    add("--activation-scope", metavar="NAME", help="within what Top-K selects: NCHW, CHW or HW")
    add("--period", type=int, metavar="N", help="iterations between exact thresholds (1)")
    add("--quiet", action="store_true", help="no progress bar")
    training = command.add_argument_group("training", "with --weights too, if one of these is given")
    given = partial(training.add_argument, default=argparse.SUPPRESS)
    given("--learning-rate", type=float, metavar="X", help="of SGD (0.1)")
    given("--momentum", type=float, metavar="X", help="of SGD (0.9)")
    given("--weight-decay", type=float, metavar="X", help="of SGD (0.0001)")
    given("--label-smoothing", type=float, metavar="X", help="of the loss (0)")
    given("--schedule", metavar="NAME", help="of the learning rate: constant, cosine or step (constant)")
    given("--decay-at", type=_numbers(int), metavar="STEP,…", help="where --schedule step divides it by 10")
    given("--warmup", type=int, metavar="N", help="iterations over which the learning rate rises (0)")
    command.set_defaults(command=capture)


def capture(options: argparse.Namespace) -> None:
    """Training → trace."""
    try:
        from accelsim.capture import train
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise AccelsimError("capture needs PyTorch: pip install 'accelsim-sparse[capture]'") from error
    from accelsim.capture.plan import Plan, Recipe
    from accelsim.study.layout import rendered
    from accelsim.study.tables import capture_tables, coverage_notes
    from accelsim.workload.trace import Trace

    told = vars(options)
    recipe = {key.name: told[key.name] for key in fields(Recipe) if key.name in told}
    swat = {name: told[name] for name in SWAT if told[name] is not None}
    swat |= settings_of(options)
    other = ("command", "command_line", "debug", "quiet", "settings", *SWAT, *recipe)
    plan = Plan(
        **{name: value for name, value in told.items() if name not in other},
        recipe=Recipe(**recipe) if recipe else None,
        options=swat,
    )
    steps = plan.step_count * len(plan.runs)
    with bar(options, _told, after="{task.description}", description="training", total=steps) as tell:
        history = train.capture(plan, tell)
    with Trace.open(plan.out) as trace:
        shown = [*capture_tables(history, trace, plan.is_frozen), *coverage_notes(trace.snapshots)]
    show(rendered(shown, terminal=is_terminal(sys.stdout)))


def _told(p: Progress) -> dict[str, Any]:
    """Loss, accuracy and sparsity reached, for the bar."""
    told = f"Top-K {100 * p.sparsity:g} %  loss {p.loss:.3f}  accuracy {100 * p.accuracy:.0f} %"
    return {"advance": 1, "description": f"{told}  zeros {100 * p.weight_sparsity:.1f} % of weights"}


def _paths(text: str) -> tuple[Path, ...]:
    """``a,b`` as paths."""
    return tuple(Path(name) for name in names(text))


def _numbers(kind: type[Number]) -> Callable[[str], tuple[Number, ...]]:
    """``1,2`` as numbers of a kind."""

    def parse(text: str) -> tuple[Number, ...]:
        try:
            return tuple(kind(part) for part in names(text))
        except ValueError:
            name = "integers" if kind is int else "numbers"
            raise argparse.ArgumentTypeError(f"must be {name} with commas between, got {text}") from None

    return parse
