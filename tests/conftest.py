"""Options and fixtures of the whole suite."""

from pathlib import Path


def pytest_addoption(parser):
    parser.addoption(
        "--golden",
        type=Path,
        default=Path(__file__).parent / "golden",
        metavar="DIR",
        help="folder of .jsonl files with cycle counts to reproduce (default: tests/golden)",
    )
