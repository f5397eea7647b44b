"""Random small machines for the property tests."""

from hypothesis import strategies as st

from accelsim.hardware.accelerators.bit_tactical import BitTactical
from accelsim.hardware.accelerators.bit_tactical_serial import TCLe, TCLp
from accelsim.hardware.accelerators.cambricon_x import CambriconX
from accelsim.hardware.accelerators.cnvlutin import Cnvlutin
from accelsim.hardware.accelerators.dadiannao import DaDianNao
from accelsim.hardware.accelerators.dcnn import DCNN
from accelsim.hardware.accelerators.dstc import DSTC
from accelsim.hardware.accelerators.ideal import Ideal
from accelsim.hardware.accelerators.laconic import Laconic
from accelsim.hardware.accelerators.loom import Loom
from accelsim.hardware.accelerators.pe_array.model import PEArray
from accelsim.hardware.accelerators.pragmatic import Pragmatic
from accelsim.hardware.accelerators.scnn import SCNN
from accelsim.hardware.accelerators.shapeshifter import ShapeShifter
from accelsim.hardware.accelerators.sigma import Sigma
from accelsim.hardware.accelerators.stripes import Stripes
from accelsim.hardware.accelerators.structured import Structured
from accelsim.hardware.accelerators.tensordash import TensorDash

# Machine files that a trace of masks is not enough for.
NEED_VALUES = ("laconic", "loom", "pragmatic", "shapeshifter", "stripes", "tcle", "tclp")
STRIDED = st.sampled_from(["phase", "dilate"])
SHAPES = {
    "tiles": st.integers(1, 3),
    "rows": st.integers(1, 4),
    "columns": st.integers(1, 5),
    "lanes": st.sampled_from([1, 2, 3, 4, 8, 17, 64]),
    "strided_input_grad": STRIDED,
    "space_to_depth": st.booleans(),
}
FIXED_ROWS = {**SHAPES, "weight_grad_rows": st.sampled_from(["activation", "gradient"])}
DRAINS = {"pipeline_drain_cycles": st.sampled_from([0, 0, 1, 3])}
SCHEDULED = {
    "free_skip_at_start": st.booleans(),
    "scheduled_operand": st.sampled_from(["sparser", "weight", "activation", "gradient"]),
    "skipping": st.sampled_from(["one_sided", "two_sided"]),
}
PORTS = {"window_ports": st.sampled_from([0, 0, 0, 1, 2, 3, 128])}
SEARCHES = st.one_of(
    st.just({"search_shape": "T", "lookahead_h": 2, "lookaside_d": 5}),
    st.fixed_dictionaries(
        {"search_shape": st.just("L"), "lookahead_h": st.integers(0, 9), "lookaside_d": st.integers(0, 9)}
    ),
)


def dadiannaos():
    return st.builds(DaDianNao, model=st.just("dadiannao"), **FIXED_ROWS, **DRAINS)


def bit_tacticals():
    build = lambda shape, search: BitTactical(model="bit_tactical", **shape, **search)  # noqa: E731
    return st.builds(build, st.fixed_dictionaries({**FIXED_ROWS, **DRAINS, **PORTS}), SEARCHES)


def tensordashes(**fixed):
    """``fixed``: strategies for some keys."""
    build = lambda keys, search: TensorDash(model="tensordash", **keys, **search)  # noqa: E731
    return st.builds(build, st.fixed_dictionaries({**SHAPES, **SCHEDULED, **DRAINS, **PORTS, **fixed}), SEARCHES)


# Bits, slices and sizes that hold each other, and every value that strategies and laws draw.
WIDTHS = st.sampled_from([(16, 16, 16), (16, 8, 16), (8, 16, 16), (16, 16, 8), (8, 8, 4), (16, 12, 5), (9, 9, 4)])
GROUPS = {"group_size": st.integers(1, 4), "minor_bit": st.booleans()}
AHEAD = {"column_registers": st.integers(0, 3)}
TERMS = {"booth_encoding": st.booleans()}
STAGE = {"bits_first_stage": st.integers(0, 4)}
EMPTY = {"empty_slots": st.sampled_from(["present", "silent"])}
DIFFY = {"differential": st.booleans()}
BIT_LEVEL = {
    "stripes": (Stripes, {}),
    "shapeshifter": (ShapeShifter, {**GROUPS, **AHEAD, **DIFFY}),
    "loom": (Loom, {**GROUPS, "pe_serial_bits": st.sampled_from([1, 2, 4]), "dynamic_weights": st.booleans()}),
    "pragmatic": (Pragmatic, {**TERMS, **STAGE, **AHEAD, **DIFFY}),
    "laconic": (Laconic, TERMS),
    "tclp": (TCLp, {**GROUPS, **AHEAD, **EMPTY}),
    "tcle": (TCLe, {**TERMS, **STAGE, **AHEAD, **EMPTY}),
}


def bit_level(model):
    kind, keys = BIT_LEVEL[model]
    searches = SEARCHES if model.startswith("tcl") else st.just({})

    def build(shape, widths, own, search):
        column_bits, row_bits, pe_width = widths
        shape = shape | {"columns": shape["columns"] + -(-column_bits // pe_width) - 1}
        shape |= {"rows": shape["rows"] + -(-row_bits // pe_width) - 1}
        bits = {"column_bits": column_bits, "row_bits": row_bits, "pe_width": pe_width}
        return kind(model=model, **shape, **bits, **own, **search)

    shared = {"precision": st.sampled_from(["full", "layer"]), "staggered_linear": st.booleans()}
    return st.builds(
        build, st.fixed_dictionaries(FIXED_ROWS), WIDTHS, st.fixed_dictionaries({**shared, **keys}), searches
    )


def pe_arrays():
    return st.builds(
        PEArray,
        model=st.just("pe_array"),
        pe_rows=st.integers(1, 4),
        pe_columns=st.integers(1, 4),
        activation_width=st.integers(1, 5),
        weight_width=st.integers(1, 5),
        update_cycles=st.sampled_from([1, 1, 2, 3]),
        accumulators=st.sampled_from([121, 150, 1000]),  # at least one 11×11 map on one PE
        banks=st.sampled_from([1, 2, 4, 8, 16, 32]),
        stride_phases=st.booleans(),
        halo_exchange=st.booleans(),
        strided_input_grad=STRIDED,
        reduction_width=st.sampled_from([0, 1, 4]),
        sample_barrier=st.booleans(),
        **DRAINS,
    )


# Products that wait, and the cycles of one in its bank, which a byte holds.
QUEUES = st.sampled_from([(0, 1), (1, 1), (2, 1), (8, 1), (102, 1), (0, 2), (1, 3), (8, 2)])


def scnns():
    build = lambda queue, **keys: SCNN(queue_depth=queue[0], update_cycles=queue[1], **keys)  # noqa: E731
    return st.builds(
        build,
        queue=QUEUES,
        model=st.just("scnn"),
        pe_rows=st.integers(1, 4),
        pe_columns=st.integers(1, 4),
        activation_width=st.integers(1, 5),
        weight_width=st.integers(1, 5),
        accumulators=st.sampled_from([1, 30, 1000]),
        group_filters=st.sampled_from([1, 2, 3, 8]),
        banks=st.sampled_from([1, 2, 4, 8, 16, 32]),
        **DRAINS,
        strided_input_grad=STRIDED,
        reduction_width=st.sampled_from([0, 1, 4]),
        sample_barrier=st.booleans(),
    )


def dcnns():
    return st.builds(
        DCNN,
        model=st.just("dcnn"),
        pe_rows=st.integers(1, 4),
        pe_columns=st.integers(1, 4),
        lanes=st.sampled_from([1, 2, 3, 16]),
        strided_input_grad=STRIDED,
    )


def sigmas():
    return st.builds(
        Sigma,
        model=st.just("sigma"),
        multipliers=st.sampled_from([1, 3, 16, 1000]),
        reduction_cut=st.sampled_from([1, 4, 9, 128]),
        load_width=st.sampled_from([1, 3, 128]),
        strided_input_grad=STRIDED,
        weight_grad_rows=st.sampled_from(["activation", "gradient"]),
    )


def dstcs():
    return st.builds(
        DSTC,
        model=st.just("dstc"),
        tile_rows=st.sampled_from([1, 3, 32]),
        tile_columns=st.sampled_from([1, 4, 32]),
        step_rows=st.sampled_from([1, 2, 8]),
        step_columns=st.sampled_from([1, 3, 16]),
        strided_input_grad=STRIDED,
    )


def cambricon_xs():
    return st.builds(
        CambriconX,
        model=st.just("cambricon_x"),
        pes=st.sampled_from([1, 2, 3, 16]),
        lanes=st.sampled_from([1, 2, 3, 8]),
        window=st.sampled_from([8, 9, 20, 1000]),
        strided_input_grad=STRIDED,
        weight_grad_rows=st.sampled_from(["activation", "gradient"]),
        **DRAINS,
    )


def cnvlutins():
    return st.builds(
        Cnvlutin,
        model=st.just("cnvlutin"),
        tiles=st.integers(1, 3),
        rows=st.integers(1, 4),
        lanes=st.sampled_from([1, 2, 3, 16]),
        brick=st.sampled_from([1, 2, 5, 16]),
        empty_brick_cycles=st.sampled_from([0, 1]),
        image_encoded=st.booleans(),
        space_to_depth=st.booleans(),
        strided_input_grad=STRIDED,
        weight_grad_skips=st.sampled_from(["activation", "gradient"]),
    )


def structureds():
    pattern = st.sampled_from([(1, 1), (1, 2), (2, 4), (1, 4), (2, 3), (4, 8)])
    build = lambda shape, pattern, lanes: Structured(  # noqa: E731
        model="structured", **shape | {"lanes": lanes * pattern[0]}, n=pattern[0], m=pattern[1]
    )
    return st.builds(build, st.fixed_dictionaries({**FIXED_ROWS, **DRAINS}), pattern, st.integers(1, 4))


def ideals():
    return st.builds(
        Ideal,
        model=st.just("ideal"),
        multipliers=st.sampled_from([1, 3, 64, 4096]),
        fwd_skips=st.sampled_from(["neither", "activation", "weight", "both"]),
        input_grad_skips=st.sampled_from(["neither", "gradient", "weight", "both"]),
        weight_grad_skips=st.sampled_from(["neither", "activation", "gradient", "both"]),
        strided_input_grad=STRIDED,
    )


MODELS = {
    "dadiannao": dadiannaos(),
    "bit_tactical": bit_tacticals(),
    **{model: bit_level(model) for model in BIT_LEVEL},
    "tensordash": tensordashes(),
    "pe_array": pe_arrays(),
    "scnn": scnns(),
    "dcnn": dcnns(),
    "sigma": sigmas(),
    "dstc": dstcs(),
    "cambricon_x": cambricon_xs(),
    "cnvlutin": cnvlutins(),
    "structured": structureds(),
    "ideal": ideals(),
}


def accelerators():
    return st.one_of(*MODELS.values())
