"""Random workloads for the property tests: geometries of every kind, tensors of every density."""

from __future__ import annotations

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from accelsim.errors import GeometryError
from accelsim.workload.geometry import Geometry
from accelsim.workload.metadata import PASSES
from accelsim.workload.trace import Layer


@st.composite
def geometries(draw, largest=7, channels=5, kernels=3, strides=3, dilations=3):
    """Any convolution of a few elements: odd sizes, stride, dilation, padding per side, groups, depthwise, linear."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    pair = lambda most: st.tuples(st.integers(1, most), st.integers(1, most))  # noqa: E731
    try:
        return Geometry(
            channels=groups * draw(st.integers(1, max(1, channels // groups))),
            height=draw(st.integers(1, largest)),
            width=draw(st.integers(1, largest)),
            filters=groups * draw(st.integers(1, max(1, channels // groups))),
            kernel=draw(pair(kernels)),
            stride=draw(pair(strides)),
            padding=draw(st.tuples(*[st.integers(0, 3)] * 4)),
            dilation=draw(pair(dilations)),
            groups=groups,
        )
    except GeometryError:
        assume(False)


@st.composite
def layers(draw, samples=2, numbers=False, **sizes):
    """A layer with its four tensors: masks, or small integers whose sums are exact."""
    geometry = draw(geometries(**sizes))
    n = draw(st.integers(1, samples))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def tensor(shape):
        mask = rng.random(shape) < draw(st.sampled_from([0.0, 0.1, 0.3, 0.6, 0.9, 1.0]))
        return mask * rng.integers(1, 9, shape) * rng.choice([-1, 1], shape) if numbers else mask

    tensors = {
        "weight": tensor(geometry.weight_shape),
        "activation": tensor(geometry.activation_shape(n)),
        "saved_activation": tensor(geometry.activation_shape(n)),
        "gradient": tensor(geometry.gradient_shape(n)),
    }
    return Layer("layer", "conv", geometry, n, n, PASSES, tensors)
