"""The command reference, from the parser itself: every command, every argument."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from accelsim import cli
from writers.markdown import escaped, joined

INTRODUCTION = """\
# Commands

Every command and every argument, as `accelsim COMMAND --help` says them; this page is generated from the parser.

Results go to standard output, progress and errors to standard error. Exit code 0 says done; 2 bad input or output, in
one line that names the file, the key or tensor, the rule and the value; 130 interrupted (Ctrl-C); 1 a defect of
accelsim, or a figure that `accelsim reproduce` or `accelsim validate` should reach and does not."""


def page() -> str:
    """The page."""
    return joined([INTRODUCTION, *_described(cli.parser())])


def subcommands(parser: argparse.ArgumentParser) -> dict[str, tuple[str, argparse.ArgumentParser]]:
    """Commands of a parser by name, each with its help and its own parser."""
    found: dict[str, tuple[str, argparse.ArgumentParser]] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            found |= {name: (helps.get(name, ""), command) for name, command in action.choices.items()}
    return found


def arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What a command takes, its commands aside."""
    return [action for action in parser._actions if not isinstance(action, argparse._SubParsersAction)]


def _described(parser: argparse.ArgumentParser, level: int = 1, summary: str = "") -> Iterator[str]:
    """A command and those below it. The parser itself comes without a heading."""
    if level > 1:
        yield f"{'#' * level} {parser.prog}"
        if summary:
            yield escaped(summary[0].upper() + summary[1:]) + "."
    if parser.description:
        yield escaped(parser.description)
    yield f"```text\n{_usage(parser)}\n```"
    yield f":::{{program}} {parser.prog}\n:::"
    yield from map(_argument, arguments(parser))
    for summary, command in subcommands(parser).values():
        yield from _described(command, level + 1, summary)


def _usage(parser: argparse.ArgumentParser) -> str:
    """The usage line, however wide the terminal is that builds."""
    formatter = argparse.HelpFormatter(parser.prog, width=84)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups)
    return formatter.format_help().strip()


def _argument(action: argparse.Action) -> str:
    """An argument with its names, its values and its help."""
    names = action.option_strings or [str(action.metavar or action.dest)]
    value = ""
    if action.option_strings and action.nargs != 0:
        value = (
            f" {action.metavar or (' | '.join(map(str, action.choices)) if action.choices else action.dest.upper())}"
        )
    text = escaped((action.help or "") % {**vars(action), "prog": "accelsim"})
    needed = " Must be given." if action.required and action.option_strings else ""
    default = f" (default: {escaped(str(action.default))})" if action.choices and action.default else ""
    return f":::{{option}} {', '.join(f'{name}{value}' for name in names)}\n{text}{default}.{needed}\n:::"
