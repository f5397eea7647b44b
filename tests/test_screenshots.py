"""Are the pictures there that docs/screenshots.py makes, small, shown on a page, and of what there is?"""

import importlib.util
import re
from pathlib import Path

import pytest

import accelsim
from accelsim import cli

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def screenshots():
    spec = importlib.util.spec_from_file_location("screenshots", DOCS / "screenshots.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_picture_is_there_small_and_on_a_page(screenshots):
    pages = "".join(page.read_text(encoding="utf-8") for page in [*DOCS.glob("*.md"), ROOT / "README.md"])
    for name in screenshots.PICTURES:
        picture = DOCS / "pictures" / name
        assert 1000 < picture.stat().st_size <= screenshots.LARGEST == 100 * 1024, name
        assert f"pictures/{name})" in pages, name


def test_what_is_photographed_is_there(screenshots):
    cli.parser().parse_args(screenshots.RUN[1:])
    for name in (screenshots.TRACE, screenshots.MACHINE):
        assert (ROOT / ("traces" if name.endswith(".npz") else "configs") / name).is_file()
    with accelsim.open_trace("resnet50.npz") as trace:
        assert "layer3.1.conv2" in [layer.name for layer in trace.snapshots[-1].layers]


def test_the_terminal_of_80_columns_has_no_longer_line(screenshots):
    text = (DOCS / "pictures" / "terminal.svg").read_text(encoding="utf-8")
    lines = re.findall(r"<text[^>]*>(.*?)</text>", text)
    plain = [re.sub(r"&\w+;", ".", re.sub(r"<[^>]+>", "", line)) for line in lines]
    assert len(plain) > 5 and all(len(line.rstrip()) <= screenshots.COLUMNS for line in plain)
    assert any("forward" in line for line in plain)
