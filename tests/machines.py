"""Random small machines for the property tests."""

from hypothesis import strategies as st

from accelsim.hardware.accelerators.bit_tactical import BitTactical
from accelsim.hardware.accelerators.dadiannao import DaDianNao
from accelsim.hardware.accelerators.pe_array import PEArray
from accelsim.hardware.accelerators.tensordash import TensorDash

SHAPES = {
    "tiles": st.integers(1, 3),
    "rows": st.integers(1, 4),
    "columns": st.integers(1, 5),
    "lanes": st.sampled_from([1, 2, 3, 4, 8, 17, 64]),
    "strided_input_grad": st.sampled_from(["phase", "dilate"]),
    "space_to_depth": st.booleans(),
}
FIXED_ROWS = {**SHAPES, "weight_grad_rows": st.sampled_from(["activation", "gradient"])}
SCHEDULED = {
    "scheduled_operand": st.sampled_from(["sparser", "weight", "activation", "gradient"]),
    "skipping": st.sampled_from(["one_sided", "two_sided"]),
}
SEARCHES = st.one_of(
    st.just({"search_shape": "T", "lookahead_h": 2, "lookaside_d": 5}),
    st.fixed_dictionaries(
        {"search_shape": st.just("L"), "lookahead_h": st.integers(0, 9), "lookaside_d": st.integers(0, 9)}
    ),
)


def dadiannaos():
    return st.builds(DaDianNao, model=st.just("dadiannao"), **FIXED_ROWS)


def bit_tacticals():
    build = lambda shape, search: BitTactical(model="bit_tactical", **shape, **search)  # noqa: E731
    return st.builds(build, st.fixed_dictionaries(FIXED_ROWS), SEARCHES)


def tensordashes(**fixed):
    """``fixed``: strategies for some keys."""
    build = lambda keys, search: TensorDash(model="tensordash", **keys, **search)  # noqa: E731
    return st.builds(build, st.fixed_dictionaries({**SHAPES, **SCHEDULED, **fixed}), SEARCHES)


def pe_arrays():
    return st.builds(
        PEArray,
        model=st.just("pe_array"),
        pe_rows=st.integers(1, 4),
        pe_columns=st.integers(1, 4),
        activation_width=st.integers(1, 5),
        weight_width=st.integers(1, 5),
        accumulators=st.sampled_from([121, 150, 1000]),  # at least one 11×11 map on one PE
        banks=st.sampled_from([1, 2, 4, 8, 16, 32]),
        stride_phases=st.booleans(),
        halo_exchange=st.booleans(),
        strided_input_grad=st.sampled_from(["phase", "dilate"]),
        reduction_width=st.sampled_from([0, 1, 4]),
    )


def accelerators():
    return st.one_of(dadiannaos(), bit_tacticals(), tensordashes(), pe_arrays())
