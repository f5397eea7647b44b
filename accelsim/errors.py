"""What goes wrong, by name. Library code raises these; only ``accelsim.cli`` prints them and exits."""


class AccelsimError(Exception):
    """Base of every error that is the input's fault; its text is fit for a user, a line for each fault."""

    def __init__(self, *parts: object):
        super().__init__(*(printable(part) if isinstance(part, str) else part for part in parts))

    @property
    def lines(self) -> tuple[str, ...]:
        """What is wrong, one line each; the first says where."""
        return (str(self),)


class GeometryError(AccelsimError):
    """A convolution whose sizes, stride, padding, dilation or groups make no sense together."""


class TraceError(AccelsimError):
    """A trace file that is missing, truncated, corrupt, of another version, or that contradicts itself."""


class ImportFormatError(AccelsimError):
    """A file of another tool that is missing, malformed, or describes what has no place in a trace."""


class ConfigError(AccelsimError):
    """A machine file that is missing, malformed, or asks for what cannot be built; ``faults`` are all that it has."""

    def __init__(self, *faults: str):
        super().__init__(*faults)

    def __str__(self) -> str:
        return "\n  ".join(self.args)

    @property
    def lines(self) -> tuple[str, ...]:
        """What is wrong, one line each; the first says where."""
        return self.args


class MachineError(AccelsimError):
    """A machine that cannot run a given convolution."""


class ResultsError(AccelsimError):
    """A folder of results that is missing, damaged, or that contradicts itself."""


class OutputError(AccelsimError):
    """Results that could not be written."""


class ToolError(AccelsimError):
    """A tool of others that is missing, or that refuses what it was given."""


class AccelsimWarning(UserWarning):
    """What costs time and nothing else; its text is fit for a user."""


def printable(text: str) -> str:
    """Text on one line, with what a terminal would obey or cannot show spelled out: files and names are untrusted."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))
