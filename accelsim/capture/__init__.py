"""From a PyTorch training run to a trace. All of PyTorch is in here, and is imported when a name below is used.

``pip install 'accelsim-sparse[capture]'`` installs it.
"""

from __future__ import annotations

from importlib import import_module

_WHERE = {
    "Recorder": "recorder",
    "Selection": "selection",
    "SeriesOf": "densities",
    "accelerate_recorder": "callbacks",
    "lightning_callback": "callbacks",
    "trainer_callback": "callbacks",
    "Swat": "swat",
    "SwatConfig": "swat",
    "convert": "swat",
}
__all__ = list(_WHERE)


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f"{__name__}.{name} needs PyTorch: pip install 'accelsim-sparse[capture]'") from error
