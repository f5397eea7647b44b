"""``accelsim report``: a folder of results as one HTML file that needs neither network nor server.

Data goes ``folders`` (what was written, checked) → ``run``, ``comparison``, ``sweep`` or ``answer`` (what is shown of
it) → ``page`` (HTML, with style, script and Plotly inside). Another kind of folder is a module like these and a line in
``KINDS``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from accelsim.errors import ResultsError
from accelsim.files import staged_file
from accelsim.study.report import answer, comparison, page, run, sweep

# The file that makes a folder one of a kind → the page of such a folder.
KINDS: dict[str, Callable[[Path], page.Page]] = {
    "run.json": run.page_of,
    "answer.json": answer.page_of,
    "compare.json": comparison.page_of,
    "sweep.json": sweep.page_of,
}


def write_report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Writes the report of a folder that ``--out`` of run, ask, compare or sweep wrote.

    The same folder gives the same bytes.

    Parameters
    ----------
    folder : path
    out : path, optional
        The file to write, by default ``report.html`` in the folder; one that exists is replaced.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ResultsError
        If the folder holds no results, or damaged ones.
    OutputError
        If the file cannot be written.
    AccelsimError
        If Plotly is not installed.
    """
    folder = Path(folder)
    out = folder / "report.html" if out is None else Path(out)
    kind = next((build for name, build in KINDS.items() if (folder / name).is_file()), None)
    if kind is None:
        what = " or ".join(KINDS)
        raise ResultsError(f"{folder}: must be a folder with {what}, as --out of run, ask, compare and sweep writes it")
    text = page.to_html(kind(folder))
    with staged_file(out) as stage:
        stage.write_text(text, encoding="utf-8")
    return out
