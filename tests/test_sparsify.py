"""Do exactly the k greatest survive, and do the shares of the layers add up to the sparsity that was asked for?"""

from math import ceil, prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.errors import AccelsimError
from accelsim.workload.sparsify import (
    SCOPES,
    channel_mask,
    erk,
    kept,
    momentum,
    structured_loss,
    structured_mask,
    threshold,
    top_k_mask,
    uniform,
)

SPARSITY = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99])
RESNET = {
    "conv1": (64, 3, 7, 7),
    "down": (256, 64, 1, 1),
    "conv2": (64, 64, 3, 3),
    "conv5": (512, 512, 3, 3),
    "depthwise": (32, 1, 3, 3),
    "fc": (1000, 512),
}


@st.composite
def tensors(draw, axes=4):
    """Small integers: many ties, many zeros."""
    shape = draw(st.tuples(*[st.integers(1, 5)] * axes))
    seed, largest = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([1, 3, 1000]))
    return np.random.default_rng(seed).integers(-largest, largest + 1, shape).astype(np.float32)


@st.composite
def networks(draw):
    axes = st.lists(st.sampled_from([(8, 4), (16, 8, 3, 3), (8, 1, 5, 5), (64, 32, 1, 1), (100, 50)]), min_size=1)
    return {f"layer{i}": shape for i, shape in enumerate(draw(axes))}


def naive_mask(values, sparsity, scope):
    """By sorting: magnitude falling, then index rising; zeros thrown out."""
    mask = np.zeros(values.shape, bool)
    lead = min(SCOPES[scope], 1 if values.ndim <= 2 else 2)
    for group in np.ndindex(*values.shape[:lead]):
        flat = np.abs(values[group]).ravel()
        order = sorted(range(flat.size), key=lambda i: (-flat[i], i))[: kept(flat.size, sparsity)]
        chosen = np.zeros(flat.size, bool)
        chosen[[i for i in order if flat[i] > 0]] = True
        mask[group] = chosen.reshape(values[group].shape)
    return mask


@pytest.mark.parametrize("scope", SCOPES)
@given(values=tensors() | tensors(axes=2) | tensors(axes=3), sparsity=SPARSITY)
@settings(max_examples=100, deadline=None)
def test_the_mask_holds_the_k_greatest_of_each_group_and_no_zero(scope, values, sparsity):
    np.testing.assert_array_equal(top_k_mask(values, sparsity, scope), naive_mask(values, sparsity, scope))


@given(values=tensors(), sparsity=SPARSITY)
@settings(max_examples=100, deadline=None)
def test_the_threshold_is_the_kth_greatest_magnitude(values, sparsity):
    ordered = np.sort(np.abs(values), axis=None)[::-1]
    assert threshold(values, sparsity) == ordered[kept(values.size, sparsity) - 1]


def test_ties_are_decided_by_index_and_zeros_do_not_fill_up():
    assert top_k_mask(np.array([2, -2, 2, 1, 2]), 0.6).tolist() == [True, True, False, False, False]
    assert top_k_mask(np.array([0, 0, -3, 0]), 0.25).tolist() == [False, False, True, False]
    assert top_k_mask(np.array([np.inf, 1, -np.inf, 2]), 0.5).tolist() == [True, False, True, False]


@pytest.mark.parametrize(("count", "sparsity", "expected"), [(10, 0.7, 3), (100, 0.29, 71), (10, 0.9, 1), (3, 0.5, 2)])
def test_k_is_that_of_the_decimal_that_was_meant(count, sparsity, expected):
    assert kept(count, sparsity) == expected


@given(st.integers(1, 10**9), st.integers(0, 999))
def test_k_is_the_ceiling_in_exact_arithmetic(count, thousandths):
    assert kept(count, thousandths / 1000) == -(-count * (1000 - thousandths) // 1000)


def test_the_threshold_of_a_large_tensor_half_zero_is_exact():
    values = np.maximum(np.random.default_rng(0).standard_normal(10**6), 0).astype(np.float32)
    assert threshold(values, 0.8) == np.sort(values)[-200_000]


@given(weight=tensors(), sparsity=SPARSITY)
@settings(max_examples=100, deadline=None)
def test_each_filter_keeps_the_channels_of_greatest_l1_norm(weight, sparsity):
    mask = channel_mask(weight, sparsity)
    assert mask.shape == weight.shape
    channels = weight.shape[1]
    for kernels, chosen in zip(np.abs(weight).sum((2, 3)), mask, strict=True):
        order = sorted(range(channels), key=lambda c: (-kernels[c], c))[: ceil(round((1 - sparsity) * channels, 9))]
        assert [c for c in range(channels) if chosen[c].all()] == sorted(c for c in order if kernels[c] > 0)
        assert all(kernel.all() or not kernel.any() for kernel in chosen)


def test_channels_by_hand():
    weight = np.array([[[[1, 1]], [[0, 3]], [[-2, 0]]], [[[5, 0]], [[1, -4]], [[0, 0]]]])
    assert channel_mask(weight, 0.6)[:, :, 0, 0].tolist() == [[True, True, False], [True, True, False]]
    assert channel_mask(weight, 0.7)[:, :, 0, 0].tolist() == [[False, True, False], [True, False, False]]


def total(shapes, densities):
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    return sum(densities[name] * sizes[name] for name in shapes) / sum(sizes.values())


def scores(shapes, seed):
    return dict(zip(shapes, np.random.default_rng(seed).exponential(size=len(shapes)) ** 3, strict=True))


DISTRIBUTIONS = {
    "erk": lambda shapes, sparsity, seed: erk(shapes, sparsity),
    "momentum": lambda shapes, sparsity, seed: momentum(shapes, sparsity, scores(shapes, seed)),
    "uniform": lambda shapes, sparsity, seed: uniform(shapes, sparsity, ()),
}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
@given(shapes=networks(), sparsity=SPARSITY, seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_shares_add_up_and_lie_in_0_1_and_fall_with_sparsity(distribution, shapes, sparsity, seed):
    densities = distribution(shapes, sparsity, seed)
    assert total(shapes, densities) == pytest.approx(1 - sparsity, abs=1e-12)
    assert all(0 < d <= 1 for d in densities.values())
    sparser = distribution(shapes, 0.995, seed)
    assert all(sparser[name] <= densities[name] + 1e-12 for name in shapes)


@given(shapes=networks(), sparsity=SPARSITY, seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_the_order_of_layers_does_not_matter(shapes, sparsity, seed):
    turned = dict(reversed(shapes.items()))
    magnitudes = scores(shapes, seed)
    assert erk(turned, sparsity) == pytest.approx(erk(shapes, sparsity))
    assert momentum(turned, sparsity, magnitudes) == pytest.approx(momentum(shapes, sparsity, magnitudes))


def test_uniform_keeps_the_first_layer_dense():
    densities = uniform(RESNET, 0.9)
    assert densities.pop("conv1") == 1
    assert set(densities.values()) == {1 - 0.9}
    assert uniform(RESNET, 0.9, ["fc"])["fc"] == 1
    assert uniform(RESNET, 0.9, ["fc"])["conv1"] < 1


def test_erk_by_hand():
    """Scores 4+2+1+1 = 8 and 10+10 = 20, sizes 8 and 100; at density 1/4 ε = 27/28, so 7.71 and 19.28 non-zeros."""
    densities = erk({"conv": (4, 2, 1, 1), "fc": (10, 10)}, 0.75)
    assert densities["conv"] == pytest.approx(27 / 28)
    assert densities["fc"] == pytest.approx(27 / 28 * 20 / 100)
    # At density 1/2 the first would hold 15.4 of its 8: dense, and the rest goes to the second.
    assert erk({"conv": (4, 2, 1, 1), "fc": (10, 10)}, 0.5) == pytest.approx({"conv": 1, "fc": 0.46})


def test_erk_gives_large_layers_less():
    densities = erk(RESNET, 0.9)
    assert densities["depthwise"] == 1 > densities["conv1"] > densities["conv2"] > densities["conv5"]


def test_momentum_by_hand():
    shapes = {"a": (10, 10), "b": (10, 10), "c": (10, 20)}
    assert momentum(shapes, 0.9, {"a": 1, "b": 1, "c": 2}) == pytest.approx({"a": 0.1, "b": 0.1, "c": 0.1})
    # 40·8/10 = 32 non-zeros of a's 100 and so on; at 50 % a is full, its 160 − 100 go to the others.
    assert momentum(shapes, 0.9, {"a": 8, "b": 1, "c": 1}) == pytest.approx({"a": 0.32, "b": 0.04, "c": 0.02})
    assert momentum(shapes, 0.5, {"a": 8, "b": 1, "c": 1}) == pytest.approx({"a": 1, "b": 0.5, "c": 0.25})


def test_a_layer_without_momentum_gets_something_and_none_at_all_is_uniform():
    shapes = {"a": (10, 10), "b": (10, 10)}
    still = momentum(shapes, 0.9, {"a": 1, "b": 0})
    assert kept(100, 1 - still["b"]) == 1
    assert momentum(shapes, 0.9, {"a": 0, "b": 0}) == {"a": 1 - 0.9, "b": 1 - 0.9}


@pytest.mark.parametrize("sparsity", [1, 1.0, -0.1, float("nan"), "0.5", None, True])
def test_a_sparsity_outside_0_1_is_refused(sparsity):
    for function in (lambda s: top_k_mask(np.ones(3), s), lambda s: erk(RESNET, s), lambda s: uniform(RESNET, s)):
        with pytest.raises(AccelsimError, match=r"sparsity: must be a number in \[0, 1\), got"):
            function(sparsity)


def test_bad_input_is_one_line():
    with pytest.raises(AccelsimError, match="got NaN"):
        top_k_mask(np.array([1, np.nan]), 0.5)
    with pytest.raises(AccelsimError, match="scope: must be one of NCHW, CHW, HW, got 'W'"):
        top_k_mask(np.ones((2, 2)), 0.5, "W")
    with pytest.raises(AccelsimError, match="must name a layer"):
        erk({}, 0.5)
    with pytest.raises(AccelsimError, match="shape of a: must be positive integers"):
        uniform({"a": (3, 0)}, 0.5)
    with pytest.raises(AccelsimError, match="there is no layer 'b'"):
        uniform({"a": (3, 3)}, 0.5, ["b"])
    with pytest.raises(AccelsimError, match="momentum of a: must be a finite number ≥ 0, got None"):
        momentum({"a": (3, 3)}, 0.5, {})


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 4), (1, 4), (3, 8)])
def test_a_structured_mask_keeps_the_greatest_of_each_group(axis, n, m):
    """Group by group, as the definition says; the last group may be short; ties keep the lowest index."""
    values = np.random.default_rng(axis).integers(-3, 4, (6, 10, 3, 2))
    mask = structured_mask(values, n, m, axis)
    lines, kept = (np.moveaxis(a, axis, -1).reshape(-1, values.shape[axis]) for a in (values, mask))
    for line, keep in zip(lines, kept, strict=True):
        for start in range(0, line.size, m):
            group = np.abs(line[start : start + m])
            best = sorted(range(group.size), key=lambda i: (-group[i], i))[:n]
            assert set(np.flatnonzero(keep[start : start + m])) == {i for i in best if group[i]}


def test_what_a_structured_mask_would_drop():
    """2:4 drops the 2 and the 1: two of five non-zeros, 3/15 of the norm. Of a mask, no norm is known."""
    weight = np.array([4, -3, 2, -1, 0, 0, 5, 0.0]).reshape(1, 8, 1, 1)
    assert structured_loss(weight, 2, 4) == (2 / 5, 3 / 15)
    assert structured_loss(weight != 0, 2, 4) == (2 / 5, None)
    assert structured_loss(weight, 2, 4, axis=0) == (0, 0)
    assert structured_loss(np.zeros((2, 4)), 2, 4) == (0, 0)
    with pytest.raises(AccelsimError, match="n:m: must be 0 < n ≤ m, got 5:4"):
        structured_loss(weight, 5, 4)
