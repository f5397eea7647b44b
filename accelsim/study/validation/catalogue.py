"""``accelsim validate``: the machines with a publication to be compared with, and what compares each."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from accelsim.errors import AccelsimError
from accelsim.study.validation import others, products, scnn, tensordash
from accelsim.study.validation.check import Validation

# Name → what it is in a line, and what compares, on so many threads; this is the order of the page.
VALIDATIONS: dict[str, tuple[str, Callable[[int], Validation]]] = {
    "scnn": ("SCNN over DCNN, by network and by density", scnn.scnn),
    "scnn-rules": ("what SCNN's rules are worth", scnn.rules),
    "eyeriss-v2-pe": ("a PE of Eyeriss v2, on real masks", others.eyeriss_v2_pe),
    "dstc": ("the dual-side sparse tensor core, by densities", products.dstc),
    "sigma": ("SIGMA on ten products of matrices", products.sigma),
    "cnvlutin": ("Cnvlutin over DaDianNao", others.cnvlutin),
    "tensordash": ("TensorDash on small networks trained for this", tensordash.tensordash),
}


def validate(names: Iterable[str] = (), jobs: int = 1) -> list[Validation]:
    """Compares by name; all where none is named.

    Raises
    ------
    AccelsimError
        If a name is unknown.
    """
    return [VALIDATIONS[name][1](jobs) for name in check(names) or VALIDATIONS]


def check(names: Iterable[str]) -> list[str]:
    """The names, once each; AccelsimError if one is not known."""
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name not in VALIDATIONS:
            raise AccelsimError(f"validation: must be one of {', '.join(VALIDATIONS)}, got {name}")
    return chosen
