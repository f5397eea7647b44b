"""Are synthetic masks what was asked for: exact, nested, reproducible, and like the real ones they are fitted to?"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim
from accelsim.errors import AccelsimError, TraceError
from accelsim.sweeps.fidelity import cycle_errors
from accelsim.workload import synthetic as drawing
from accelsim.workload import tiles
from accelsim.workload.geometry import Geometry
from accelsim.workload.likeness import compare, compare_work
from accelsim.workload.mask_model import MaskModel, greatest, pair_density
from accelsim.workload.metadata import FIRST_LAYER, PASSES
from accelsim.workload.patterns import Blocks, Stored
from accelsim.workload.sparsify import kept
from accelsim.workload.synthetic import Blueprint, assemble, fit, fitted, write
from accelsim.workload.tiles import NEVER
from accelsim.workload.trace import Layer, Trace

SHAPES = st.tuples(*[st.integers(1, 6)] * 4)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def resnet():
    with accelsim.open_trace("resnet50.npz") as trace:
        yield trace


def blueprints(**sources):
    """The tiny network, every mask uniform."""
    uniform = {"weight": MaskModel.uniform(1.0), "activation": MaskModel.uniform(0.5)}
    uniform |= {"gradient": MaskModel.uniform(0.9), **sources}
    return [
        Blueprint(name, kind, geometry, FIRST_LAYER if name == "conv1" else PASSES, **uniform, dense=name == "conv1")
        for name, (kind, geometry) in TINY.items()
    ]


# ---- real masks at many sparsities


@pytest.fixture(scope="module")
def levels():
    with accelsim.open_trace("resnet50-levels.npz") as trace:
        yield trace


def test_the_shipped_levels_are_what_they_are_called(levels):
    """Every weight but the first layer's has its level exactly; only Top-K differs from one snapshot to the next."""
    assert [(s.name, s.sparsity) for s in levels.snapshots] == [
        ("dense", 0), *((f"swat{level}", level / 100) for level in (50, 70, 80, 90, 95, 98))
    ]  # fmt: skip
    for first, *others in zip(*(snapshot.layers for snapshot in levels.snapshots), strict=True):
        activation = first.tensor("activation")
        assert first.tensor("weight").all()
        for layer, snapshot in zip(others, levels.snapshots[1:], strict=True):
            size = layer.tensor("weight").size
            density = np.count_nonzero(layer.tensor("weight")) / size
            assert density == 1 if layer.name == "conv1" else density == pytest.approx(1 - snapshot.sparsity, abs=2e-4)
            assert np.array_equal(layer.tensor("activation"), activation)
            assert np.array_equal(layer.tensor("gradient"), first.tensor("gradient"))
            if "saved_activation" in layer.tensors:
                saved = layer.tensor("saved_activation")
                assert not (saved & ~activation).any()
                assert saved.mean() == pytest.approx(min(1 - snapshot.sparsity, activation.mean()), abs=0.11)


def test_drawn_masks_are_near_levels_that_the_fit_never_saw(levels):
    """Fitted to 80 % alone. Cambricon-X waits for the fullest filter, which tells most how uneven they are."""
    drawn = fitted(levels, [0.9, 0.95], reference="swat80")
    machine = accelsim.load_machine("cambricon-x.yaml", memory="none")
    errors = cycle_errors(machine, levels, drawn, passes=["fwd", "input_grad"], layers="layer3.0.*")["error"]
    assert errors.abs().max() < 0.035  # 0.1 where offsets do not grow with the threshold


# ---- the model of a mask


def spread(mask):
    """How far the filters' densities are apart, over their mean."""
    share = mask.mean(axis=(1, 2, 3))
    return share.std() / share.mean()


@pytest.mark.parametrize("sparsity", [0.5, 0.95, 0.98])
def test_filters_of_greater_weights_keep_the_more_the_fewer_are_kept(sparsity):
    """Weights whose standard deviations differ by filter, pruned to 80 %, tell how uneven another Top-K will be."""
    values = np.abs(rng().standard_normal((256, 64, 3, 3))) * np.exp(0.3 * rng(1).standard_normal((256, 1, 1, 1)))
    pruned, real = (greatest(values, kept(values.size, s)) for s in (0.8, sparsity))
    plain = MaskModel.fit(pruned)
    plain_spread, grown_spread = (
        spread(greatest(model.scores(values.shape, rng(2)), kept(values.size, sparsity)))
        for model in (plain, plain.of_magnitudes())
    )
    assert grown_spread == pytest.approx(spread(real), rel=0.08)
    assert abs(plain_spread / spread(real) - 1) > 0.12


def test_offsets_of_an_activation_grow_as_between_its_own_zeros_and_its_top_k():
    """Channels differ by an offset, places by a factor: seen at 50 % and 80 %, true at 95 %."""
    field = rng().standard_normal((32, 64, 8, 8))
    values = field * np.exp(0.25 * rng(1).standard_normal((1, 1, 8, 8))) + 0.5 * rng(2).standard_normal((1, 64, 1, 1))
    cuts = [greatest(values, kept(values.size, s)) for s in (0.5, 0.8, 0.95)]
    dense, saved, real = cuts
    model = MaskModel.fit(saved)
    grown = model.growing_from(MaskModel.fit(dense))
    assert grown.growth[2] > 0.5 > abs(grown.growth[1])

    def places(model):
        drawn = greatest(model.scores(values.shape, rng(3)), np.count_nonzero(real))
        return drawn.mean(axis=(0, 1)).std()

    wanted = real.mean(axis=(0, 1)).std()
    assert places(grown) == pytest.approx(wanted, rel=0.12)
    assert places(model) < 0.85 * wanted
    assert model.growing_from(MaskModel.fit(greatest(values, kept(values.size, 0.75)))).growth == (0, 0, 0)


@pytest.mark.parametrize("growth", [(0.4, 0.4, 0.4), (-0.3, 1.0, 0.2)])
def test_growth_changes_no_mask_at_the_fits_own_density(growth):
    mask = rng().random((8, 8, 3, 3)) < 0.2 + 0.3 * rng(1).random((8, 1, 1, 1))
    model = MaskModel.fit(mask)
    one, two = (m.scores(mask.shape, rng(2)) > m.threshold for m in (model, replace(model, growth=growth)))
    assert (one == two).mean() > 0.999


@settings(deadline=None)
@given(SHAPES, st.integers(0, 99), st.integers(0, 1 << 16))
def test_exactly_the_greatest_are_chosen_and_fewer_are_among_more(shape, seed, cut):
    scores = rng(seed).integers(0, 5, shape).astype(np.float32)  # with many ties
    counts = sorted({0, cut % (scores.size + 1), scores.size})
    masks = [greatest(scores, count) for count in counts]
    assert [np.count_nonzero(mask) for mask in masks] == counts
    for mask, larger in pairwise(masks):
        assert not (mask & ~larger).any()
        assert scores[mask].min(initial=9) >= scores[~mask].max(initial=-1)


def drawn_of(source, shape, generator):
    """The mask of a source before any Top-K, drawn as a whole."""
    scores = source.scores(shape, generator)
    return greatest(scores, source.count(scores.size)) & (scores > NEVER)


@settings(deadline=None, max_examples=50)
@given(SHAPES, st.floats(0, 1), st.integers(0, 99))
def test_any_mask_can_be_fitted_and_drawn_again(shape, density, seed):
    mask = rng(seed).random(shape) < density
    model = MaskModel.fit(mask)
    drawn = drawn_of(model, shape, rng())
    assert np.count_nonzero(drawn) == np.count_nonzero(mask)
    other = (2, 3, 4, 5)
    assert drawn_of(model, other, rng()).sum() == round(model.density * 120)


def test_a_uniform_model_has_no_structure():
    model = MaskModel.fit(rng().random((32, 32, 16, 16)) < 0.3)
    assert np.abs(model.correlation).max() < 0.02
    assert max(offsets.std() for offsets in (model.first, model.second, model.places)) < 0.03


def test_structure_is_found_and_drawn_again():
    """Filters, channels and places of different densities, and neighbours alike: all of it comes back."""
    offsets = np.linspace(-1, 1, 40), np.linspace(0.5, -0.5, 30), np.linspace(-0.5, 0.5, 144).reshape(12, 12)
    true = MaskModel(0.3, *offsets, (0.7, 0.4))
    shape = 40, 30, 12, 12
    mask = drawn_of(true, shape, rng(1))
    model = MaskModel.fit(mask)
    assert model.correlation == pytest.approx(true.correlation, abs=0.03)
    again = drawn_of(model, shape, rng(2))
    for axes in ((1, 2, 3), (0, 2, 3), (0, 1)):
        assert np.corrcoef(mask.mean(axes).ravel(), again.mean(axes).ravel())[0, 1] > 0.9
        assert np.std(again.mean(axes)) == pytest.approx(np.std(mask.mean(axes)), rel=0.1)
    for axis in (2, 3):
        assert pair_density(again, axis) == pytest.approx(pair_density(mask, axis), rel=0.02)
        assert pair_density(mask, axis) > 1.5 * 0.3**2  # there was something to find


# ---- traces


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8, 0.95])
def test_top_k_keeps_exactly_its_count_and_the_first_layer_stays_dense(sparsity):
    trace = assemble(blueprints(), [sparsity], path="x", network="tiny", samples=2)
    for layer in trace.snapshots[0].layers:
        weight, activation = layer.tensor("weight"), layer.tensor("activation")
        if layer.name == "conv1":
            assert weight.all() and "saved_activation" not in layer.tensors
            continue
        assert np.count_nonzero(weight) == kept(weight.size, sparsity)
        assert np.count_nonzero(activation) == round(0.5 * activation.size)
        saved = layer.tensor("saved_activation")
        wanted = kept(saved.size, sparsity) if sparsity else activation.size
        assert np.count_nonzero(saved) == min(np.count_nonzero(activation), wanted)
        assert not (saved & ~activation).any()


def test_masks_of_a_seed_are_nested_over_sparsities_and_others_differ():
    trace = assemble(blueprints(), [0.5, 0.8, 0.9], path="x", network="tiny")
    half, less, least = (snapshot.layers[1] for snapshot in trace.snapshots)
    for name in ("weight", "saved_activation"):
        assert not (less.tensor(name) & ~half.tensor(name)).any()
        assert not (least.tensor(name) & ~less.tensor(name)).any()
    for name in ("activation", "gradient"):
        assert (less.tensor(name) == half.tensor(name)).all()
    other = assemble(blueprints(), [0.5], path="x", network="tiny", seed=1).snapshots[0].layers[1]
    assert (other.tensor("weight") != half.tensor("weight")).any()


def test_a_tensor_is_the_same_each_time_and_whoever_asks_first():
    one, two = (assemble(blueprints(), [0.8], path="x", network="tiny").snapshots[0].layers[1] for _ in range(2))
    names = ["weight", "activation", "saved_activation", "gradient"]
    first = {name: one.tensor(name) for name in names}
    for name in reversed(names):
        assert (two.tensor(name) == first[name]).all()


def test_numbers_of_a_file_get_top_k():
    values = rng().standard_normal((8, 8, 3, 3)).astype(np.float32)
    values[0] = 0
    layers = [b for b in blueprints(weight=Stored(lambda: values)) if b.name == "block/conv2"]
    dense, sparse = (s.layers[0].tensor("weight") for s in assemble(layers, [0, 0.8], path="x", network="t").snapshots)
    assert (dense == (values != 0)).all()
    assert np.count_nonzero(sparse) == kept(values.size, 0.8)
    assert np.abs(values)[sparse].min() >= np.abs(values)[~sparse].max()


@pytest.mark.parametrize(("given", "rule"), [(np.zeros((8, 8, 3, 2)), "must have shape"), (np.nan, "NaN")])
def test_numbers_that_do_not_fit_are_refused_by_name(given, rule):
    array = np.broadcast_to(np.float32(given), np.shape(given) or (8, 8, 3, 3))
    layers = [b for b in blueprints(weight=Stored(lambda: array)) if b.name == "block/conv2"]
    with pytest.raises(TraceError, match=f"x: dense/block/conv2/weight: .*{rule}"):
        assemble(layers, [0], path="x", network="t").snapshots[0].layers[0].tensor("weight")


@settings(deadline=None)
@given(SHAPES, st.integers(1, 6), st.integers(0, 5))
def test_of_each_block_of_m_weights_n_are_non_zero(shape, size, fewer):
    blocks = Blocks(max(1, size - fewer), size)
    mask = drawn_of(blocks, shape, rng())
    for row in mask.transpose(0, 2, 3, 1).reshape(shape[0], -1):
        for start in range(0, row.size, size):
            part = row[start : start + size]
            assert part.sum() == min(blocks.kept, part.size)


def test_each_filter_may_have_an_n_of_its_own():
    """As SCALE-Sim draws them: ``np.random.seed(40)``, then ``randint(1, M // 2 + 1)`` filter by filter."""
    mask = drawn_of(Blocks(None, 8), (6, 16, 1, 1), rng())
    assert mask.reshape(6, 2, 8).sum(axis=2).tolist() == [[n, n] for n in (3, 4, 4, 2, 1, 1)]


# ---- tile by tile


@settings(deadline=None, max_examples=80)
@given(SHAPES, st.integers(1, 40))
def test_blocks_follow_each_other_and_are_all(shape, most):
    array, found = np.arange(np.prod(shape)).reshape(shape), []
    for block in tiles.blocks(shape, most):
        assert array[block].shape == tiles.shape_of(block, shape)
        assert array[block].size <= max(most, shape[3])
        found += array[block].ravel().tolist()
    assert found == list(range(array.size))


SCORES = st.lists(st.sampled_from([-3.5, -1.0, -0.0, 0.0, 1e-9, 2.0, 7.5, float("-inf")]), min_size=1, max_size=60)


@settings(deadline=None, max_examples=150)
@given(SCORES, st.integers(0, 70), st.integers(1, 9))
def test_the_greatest_of_tiles_are_those_of_the_whole(scores, count, size):
    """The naive twin takes them from all scores at once."""
    whole = np.array(scores, np.float32)
    parts = [whole[start : start + size] for start in range(0, whole.size, size)]
    field = tiles.Field((1, 1, 1, whole.size), lambda: iter(parts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", 1)
        walk = field.greatest(count)
    assert np.concatenate(list(walk())).tolist() == (greatest(whole, count) & (whole > NEVER)).tolist()
    assert np.concatenate(list(walk())).tolist() == np.concatenate(list(walk())).tolist()


def test_large_tensors_are_drawn_in_tiles_with_exactly_as_many_and_nested(tmp_path, monkeypatch):
    for module in (tiles, drawing):
        monkeypatch.setattr(module, "TILE", 100)
    values = rng().standard_normal((8, 8, 3, 3)).astype(np.float32)
    stored = [
        b for b in blueprints(weight=Stored(lambda: values, lambda rows: values[rows])) if b.name == "block/conv2"
    ]
    others = [b for b in blueprints() if b.name != "block/conv2"]
    trace = assemble(stored + others, [0, 0.5, 0.8], path="x", network="t", samples=2)
    write(trace, tmp_path / "t.npz")
    with Trace.open(tmp_path / "t.npz") as back:
        dense, half, fifth = back.snapshots
    with Trace.open(tmp_path / "t.npz") as back:
        for number, blueprint in enumerate(stored + others):
            dense, half, fifth = (snapshot.layers[number] for snapshot in back.snapshots)
            if not blueprint.dense:
                assert [layer.tensor("weight").sum() for layer in (half, fifth)] == [
                    kept(dense.tensor("weight").size, sparsity) for sparsity in (0.5, 0.8)
                ]
            active = dense.tensor("activation")
            assert active.sum() == blueprint.activation.count(active.size)
            for name in ("weight", "saved_activation"):
                assert not (fifth.tensor(name) & ~half.tensor(name)).any()
            assert not (half.tensor("saved_activation") & ~active).any()
        fifth = back.snapshots[2].layers[0].tensor("weight")
        assert np.abs(values)[fifth].min() >= np.abs(values)[~fifth].max()


def test_offsets_are_the_wholes_in_every_tile(monkeypatch):
    """Dense filters and channels are dense wherever a tile begins."""
    for module in (tiles, drawing):
        monkeypatch.setattr(module, "TILE", 500)
    offsets = np.linspace(-2, 2, 16), np.linspace(-1, 1, 12), np.zeros((1, 1))
    blueprint = replace(blueprints()[0], geometry=Geometry(12, 9, 9, 16, (9, 9)), dense=False,
                        weight=MaskModel(0.4, *offsets))  # fmt: skip
    mask = assemble([blueprint], [0], path="x", network="t").snapshots[0].layers[0]
    mask = mask.tensors.pieces("weight").whole()
    assert mask.all()  # a snapshot at 0 keeps every weight that is drawn
    half = assemble([blueprint], [0.6], path="x", network="t").snapshots[0].layers[0].tensor("weight")
    assert np.corrcoef(half.mean((1, 2, 3)), offsets[0])[0, 1] > 0.95
    assert np.corrcoef(half.mean((0, 2, 3)), offsets[1])[0, 1] > 0.95


def test_a_written_trace_reads_the_same_and_runs(tmp_path):
    trace = assemble(blueprints(), [0, 0.8], path="x", network="tiny", samples=2, batch=4, seed=3)
    write(trace, tmp_path / "t.npz")
    machine = accelsim.load_machine("pe8x8.yaml")
    with Trace.open(tmp_path / "t.npz") as back:
        assert back.provenance == {"synthetic": "accelsim, seed 3"}
        for one, two in zip(trace.snapshots, back.snapshots, strict=True):
            for layer, again in zip(one.layers, two.layers, strict=True):
                assert list(again.tensors) == list(layer.tensors)
                assert all((layer.tensor(name) == again.tensor(name)).all() for name in layer.tensors)
        assert accelsim.simulate(machine, trace).equals(accelsim.simulate(machine, back))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"sparsities": []}, "sparsity: must be"),
        ({"sparsities": [0.5, 0.5]}, "each once"),
        ({"sparsities": [1.0]}, r"in \[0, 1\)"),
        ({"samples": 0}, "samples: must be"),
        ({"batch": 1, "samples": 2}, "samples: must be"),
        ({"seed": -1}, "seed: must be"),
        ({"blueprints": []}, "must have a layer"),
    ],
)
def test_what_makes_no_trace_is_refused(change, rule):
    how = {"blueprints": blueprints(), "sparsities": [0], "path": "x", "network": "t", **change}
    with pytest.raises(AccelsimError, match=rule):
        assemble(**how)


# ---- like a real trace


CHOSEN = ["layer1.2.conv3", "layer3.0.conv2", "layer4.0.conv3"]


@pytest.fixture(scope="module")
def pairs(resnet):
    """Real layers and synthetic ones fitted to them, at the sparsity that they are fitted at."""
    found = []
    for layer in resnet.snapshot("swat80").layers:
        if layer.name in CHOSEN:
            trace = assemble([fit(layer)], [0.8], path="x", network="r")
            found.append((layer, trace.snapshots[0].layers[0]))
    return found


def test_fitted_masks_have_the_densities_and_neighbours_of_the_real_ones(pairs):
    for real, synthetic in pairs:
        for like in compare(real, synthetic):
            # The saved activation is a Top-K over the batch, of which the trace has one image: its share is its own.
            tolerance = 0.03 if like.tensor == "saved_activation" else 0.0001
            assert like.synthetic == pytest.approx(like.real, abs=tolerance), like
            assert like.first_error < 0.06 and like.second_error < 0.13, like  # a draw of 64 has 0.05
            if like.tensor != "saved_activation":
                for a, b in zip(like.real_pairs, like.synthetic_pairs, strict=True):
                    assert b == pytest.approx(a, rel=0.05), like


def test_fitted_masks_leave_the_work_of_the_real_ones(pairs):
    for real, synthetic in pairs:
        for like in compare_work(real, synthetic):
            assert like.synthetic == pytest.approx(like.real, rel=0.05 if like.which == "fwd" else 0.2), like


def test_a_comparison_notices_what_differs(pairs):
    real, synthetic = pairs[0]
    uniform = assemble(
        [replace(fit(real), weight=MaskModel.uniform(0.2), activation=MaskModel.uniform(0.5))],
        [0.8], path="x", network="r",
    ).snapshots[0].layers[0]  # fmt: skip
    fine, poor = ({like.tensor: like for like in compare(real, other)} for other in (synthetic, uniform))
    assert poor["activation"].synthetic - fine["activation"].synthetic > 0.05
    assert poor["weight"].first_error > 3 * fine["weight"].first_error
    with pytest.raises(TraceError, match="must have the shape"):
        list(compare(real, pairs[1][1]))


def test_cycles_of_a_fitted_trace_are_those_of_the_real_one(resnet, tmp_path):
    """A part of the network, fitted at 80 %; at 90 % nothing was fitted. docs/importers.md has all of it."""
    names = [f"layer{n}.0.conv{m}" for n in (2, 3, 4) for m in (2, 3)]
    snapshots = tuple(
        replace(s, layers=tuple(layer for layer in s.layers if layer.name in names)) for s in resnet.snapshots
    )
    part = Part(resnet, snapshots)
    errors = cycle_errors(accelsim.load_machine("pe16x16.yaml"), part, fitted(part), jobs=2)
    errors = errors.set_index(["sparsity", "pass"])["error"]
    for sparsity in (0.0, 0.8, 0.9):
        assert abs(errors[sparsity, "fwd"]) < 0.04
        assert abs(errors[sparsity, "input_grad"]) < 0.04
        assert abs(errors[sparsity, "weight_grad"]) < 0.2
    with pytest.raises(AccelsimError, match="is none of them"):
        cycle_errors(accelsim.load_machine("pe16x16.yaml"), part, fitted(part, [0.33]))
    alone = tuple(replace(layer, batch=1) for layer in part.snapshots[1].layers)
    other = replace(fitted(part, [0.8]), snapshots=(replace(part.snapshots[1], layers=alone),))
    with pytest.raises(AccelsimError, match="must be the real trace's, are 1 of 1 and 1 of 32"):
        cycle_errors(accelsim.load_machine("pe16x16.yaml"), part, other)


class Part:
    """Some layers of a trace."""

    def __init__(self, trace, snapshots):
        self.path, self.network, self.dataset = trace.path, trace.network, trace.dataset
        self.digest, self.snapshots = trace.digest, snapshots


def test_layers_that_are_dense_in_the_real_trace_stay_dense(tiny):
    with Trace.open(tiny) as real:
        ours = fitted(real, [0.9], reference="dense", seed=2)
        assert [layer.tensor("weight").all() for layer in ours.snapshots[0].layers] == [True] + [False] * 4
        assert ours.provenance["sha256"] == real.digest and ours.provenance["fitted to"] == "tiny.npz: dense"
        own = fitted(real)
        assert [s.name for s in own.snapshots] == ["dense", "swat80"]
        assert all(layer.tensor("weight").all() for layer in own.snapshots[0].layers)


def test_a_layer_without_a_tensor_cannot_be_fitted():
    layer = Layer("l", "conv", Geometry(2, 3, 3, 2, (1, 1)), 1, 1, PASSES, {"weight": np.ones((2, 2, 1, 1), bool)})
    with pytest.raises(TraceError, match="l/activation: must be in the trace"):
        fit(layer)
