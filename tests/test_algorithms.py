"""Do the training algorithms do what their publications say? Each against its rule, written anew here, in float64."""

import copy
import io
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from accelsim.capture.algorithms import ALGORITHMS, build  # noqa: E402
from accelsim.capture.algorithms.evolutionary import without_nearest_zero  # noqa: E402
from accelsim.capture.algorithms.masked import grown, pruned, shared_out  # noqa: E402
from accelsim.errors import AccelsimError  # noqa: E402
from accelsim.workload.sparsify import kept, structured_mask  # noqa: E402

torch.set_num_threads(1)
# Which operands are sparse by the algorithm: forward weight, input gradient's weight, what is saved, the output
# gradient; and whether only active weights get a gradient, in an iteration in which masks do not change.
SPARSE = {
    "swat-u": "fwd bwd saved",
    "swat-erk": "fwd bwd saved",
    "swat-m": "fwd bwd saved",
    "swat-structured": "fwd bwd saved",
    "swat-masked": "fwd bwd saved masked",
    "saw": "bwd saved",
    "meprop": "gradient",
    "gmp": "fwd bwd masked",
    "set": "fwd bwd masked",
    "dsr": "fwd bwd masked",
    "snfs": "fwd bwd",
    "rigl": "fwd bwd masked",
    "dst": "fwd bwd",
    "dsg": "gradient",
    "sr-ste": "fwd bwd",
    "forward-topk": "fwd",
}
# So that something happens within a few steps.
QUICK = {
    "gmp": {"every": 2, "end_at": 0.5},
    "set": {"every": 3},
    "dsr": {"every": 2, "drop": 0.1, "threshold": 0.02},
    "snfs": {"every": 3},
    "rigl": {"every": 3},
    "dst": {"alpha": 0.02},
    "swat-u": {"period": 3},
    "swat-m": {"period": 2},
}
LAYER = "2"


def net(seed=0):
    torch.manual_seed(seed)
    layers = nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
    return nn.Sequential(*layers, nn.Conv2d(8, 8, 3, 2), nn.Flatten(), nn.Linear(32, 4)).double()


def made(name, steps=12, sparsity=0.75, **options):
    model = net()
    algorithm = build(name, model, sparsity, steps=steps, options=QUICK.get(name, {}) | options)
    parameters = [{"params": model.parameters()}, {"params": algorithm.parameters(), "weight_decay": 0.0}]
    return model, algorithm, torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=1e-3)


def batch(step):
    draw = torch.Generator().manual_seed(step)
    inputs = torch.randn(5, 2, 7, 7, generator=draw, dtype=torch.float64)
    return inputs, torch.randint(4, (5,), generator=draw)


def backward(model, optimizer, step):
    inputs, targets = batch(step)
    optimizer.zero_grad()
    F.cross_entropy(model(inputs), targets).backward()


def run(model, algorithm, optimizer, steps, begin=0):
    for step in range(begin, begin + steps):
        backward(model, optimizer, step)
        algorithm.before_update(optimizer)
        optimizer.step()
        algorithm.step(optimizer)


def handed_over(layer, work):
    """The tensors that a layer says it multiplied, with its input, output and their gradients."""
    seen = {}
    layer.record = lambda name, tensor: seen.setdefault(name, tensor.detach().clone())
    handles = [
        layer.register_forward_hook(lambda _, inputs, out: seen.update(out=out.detach().clone())),
        layer.register_full_backward_hook(lambda _, to_in, to_out: seen.update(dx=to_in[0], dy=to_out[0])),
    ]
    work()
    for handle in handles:
        handle.remove()
    layer.record = None
    seen.setdefault("backward_weight", seen["weight"])
    seen.setdefault("saved_activation", seen["activation"])
    seen.setdefault("gradient", seen["dy"])
    return seen


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_product_is_of_the_operands_that_the_algorithm_says(name):
    model, algorithm, optimizer = made(name)
    run(model, algorithm, optimizer, 7)
    layer = algorithm.layers[LAYER]
    if hasattr(algorithm, "states") and name in ("rigl", "gmp", "set", "dsr", "snfs"):
        assert algorithm.iteration % algorithm.every  # between two changes
    weight_before = layer.weight.detach().clone()
    seen = handed_over(layer, lambda: backward(model, optimizer, 7))
    x, w = seen["activation"], seen["weight"]
    out = F.conv2d(x, w, layer.bias, padding=1)
    computed = out if name != "dsg" else torch.where(seen["gradient"] != 0, out, 0)
    assert torch.allclose(seen["out"], computed) or name == "dsg"
    assert (seen["out"] != out).sum() == (0 if name != "dsg" else (seen["out"] == 0).sum())
    g, v, saved = seen["gradient"], seen["backward_weight"], seen["saved_activation"]
    assert torch.allclose(seen["dx"], torch.nn.grad.conv2d_input(x.shape, v, g, padding=1))
    dense = torch.nn.grad.conv2d_weight(saved, w.shape, g, padding=1)
    active = layer.swat.active(layer.weight)  # a weight that has just grown is zero, and gets a gradient
    if "masked" in SPARSE[name].split():
        assert torch.allclose(layer.weight.grad, torch.where(active, dense, 0)) and dense[~active].any()
    else:
        assert torch.allclose(layer.weight.grad, dense)
    sparse = {
        "fwd": bool((w == 0).any()),
        "bwd": bool((v == 0).any()),
        "saved": not torch.equal(saved, x),
        "gradient": not torch.equal(g, seen["dy"]),
    }
    assert {key for key, is_sparse in sparse.items() if is_sparse} == set(SPARSE[name].split()) - {"masked"}
    for tensor in (w, v):  # what is multiplied is the parameter, but for zeros
        assert torch.equal(tensor, torch.where(tensor != 0, weight_before, 0))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_resumed_from_a_checkpoint_goes_on_bit_by_bit(name):
    model, algorithm, optimizer = made(name)
    run(model, algorithm, optimizer, 5)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in (model, optimizer, algorithm)], file)
    run(model, algorithm, optimizer, 5, begin=5)
    file.seek(0)
    resumed, again, other = made(name)
    for part, state in zip((resumed, other, again), torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    run(resumed, again, other, 5, begin=5)
    for own, theirs in zip(model.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(own, theirs)
    for own, theirs in zip(algorithm.parameters(), again.parameters(), strict=True):
        assert torch.equal(own, theirs)


@pytest.mark.parametrize("name", ["swat-u", "rigl", "dst"])
def test_a_checkpoint_is_needed_to_go_on_alike(name):
    """The test above would pass an algorithm that keeps nothing, were there nothing to keep."""
    model, algorithm, optimizer = made(name)
    run(model, algorithm, optimizer, 5)
    resumed, again, other = made(name)
    resumed.load_state_dict(model.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(model, algorithm, optimizer, 5, begin=5)
    run(resumed, again, other, 5, begin=5)
    assert not torch.equal(model[2].weight, resumed[2].weight)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_restored_model_is_the_one_that_it_was(name):
    model, algorithm, optimizer = made(name)
    with algorithm:
        run(model, algorithm, optimizer, 2)
    assert [type(layer) for layer in model] == [type(layer) for layer in net()]
    inputs, _ = batch(0)
    plain = net()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(inputs), plain.eval()(inputs))


# ---- Under a mask


masks = st.integers(2, 30).flatmap(
    lambda n: st.tuples(st.lists(st.booleans(), min_size=n, max_size=n),
                        st.lists(st.integers(-5, 5), min_size=n, max_size=n), st.integers(0, n))
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(masks)
def test_pruning_and_growing_choose_exactly_so_many_of_least_and_greatest(case):
    mask, values, count = torch.tensor(case[0]), torch.tensor(case[1], dtype=torch.float64), case[2]
    left = pruned(mask, values, count)
    active = sorted((abs(v), i) for i, (m, v) in enumerate(zip(*case[:2], strict=True)) if m)
    assert set(left.nonzero().flatten().tolist()) == {i for _, i in active[min(count, len(active)) :]}
    more = grown(mask, values, count)
    idle = sorted((-v, i) for i, (m, v) in enumerate(zip(*case[:2], strict=True)) if not m)
    wanted = {i for _, i in idle[:count]} | set(mask.nonzero().flatten().tolist())
    assert set(more.nonzero().flatten().tolist()) == wanted


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), min_size=1, max_size=6), st.integers(0, 60))
def test_what_went_is_shared_out_whole_in_proportion_and_within_the_room(layers, total):
    scores = {str(i): float(s) for i, (s, _) in enumerate(layers)}
    room = {str(i): r for i, (_, r) in enumerate(layers)}
    given_out = shared_out(total, scores, room)
    assert sum(given_out.values()) == min(total, sum(room.values()))
    assert all(0 <= given_out[name] <= room[name] for name in room)
    whole = sum(scores.values())
    if whole and all(total * s / whole <= room[name] for name, s in scores.items()):
        assert all(abs(given_out[name] - total * scores[name] / whole) <= len(layers) for name in room)


@pytest.mark.parametrize("name", ["set", "dsr", "snfs", "rigl"])
@pytest.mark.parametrize("distribution", ["uniform", "erk"])
def test_sparse_from_scratch_begins_with_exact_counts_and_keeps_their_sum(name, distribution):
    model, algorithm, optimizer = made(name, distribution=distribution)
    counts = {n: int(mask.sum()) for n, (_, mask) in algorithm.sparse.items()}
    expected = {n: kept(w.numel(), 1 - algorithm.densities[n]) for n, (w, _) in algorithm.sparse.items()}
    assert counts == expected and ("0" in counts) == (distribution == "erk" and algorithm.densities["0"] < 1)
    for step in range(10):
        run(model, algorithm, optimizer, 1, begin=step)
        now = {n: int(mask.sum()) for n, (_, mask) in algorithm.sparse.items()}
        assert sum(now.values()) == sum(counts.values())
        if name in ("set", "rigl"):
            assert now == counts  # "fixed" in the paper's Table 1; the other two move weights between layers
        for weight, mask in algorithm.sparse.values():
            assert not weight[~mask].any()


def test_set_drops_of_each_sign_those_nearest_to_zero():
    draw = torch.Generator().manual_seed(3)
    weight = torch.randn(20, 10, generator=draw, dtype=torch.float64)
    mask = torch.rand(20, 10, generator=draw) < 0.4
    left = without_nearest_zero(mask, weight, 0.3)
    for sign in (1, -1):
        of = sorted(float(v) * sign for v in weight[mask] if v * sign > 0)
        stay = sorted(float(v) * sign for v in weight[left] if v * sign > 0)
        assert stay == of[int(0.3 * len(of)) :]


def test_new_weights_of_set_begin_at_zero_at_places_that_were_idle():
    model, algorithm, optimizer = made("set")
    run(model, algorithm, optimizer, 2)
    before = algorithm.states[LAYER].mask.clone()
    run(model, algorithm, optimizer, 1, begin=2)
    after = algorithm.states[LAYER].mask
    new = after & ~before
    assert new.any() and not model[2].weight[new].any()


def test_dsr_halves_and_doubles_its_threshold_and_grows_where_most_is_left():
    model, algorithm, optimizer = made("dsr", threshold=1e-6, every=1)
    run(model, algorithm, optimizer, 1)
    assert algorithm.threshold == 2e-6  # nothing went
    algorithm.threshold = 1.0
    counts = {n: int(mask.sum()) for n, (_, mask) in algorithm.sparse.items()}
    weights = {n: w.detach().clone() for n, (w, _) in algorithm.sparse.items()}
    algorithm.threshold = float(weights[LAYER].abs()[algorithm.states[LAYER].mask].median())
    held, left = algorithm.threshold, {}
    for n, (weight, mask) in algorithm.sparse.items():
        left[n] = int((mask & (weight.abs() >= held)).sum())
    algorithm.change(None)
    assert algorithm.threshold == held / 2
    gone = sum(counts.values()) - sum(left.values())
    for n, (_, mask) in algorithm.sparse.items():
        assert abs(int(mask.sum()) - left[n] - gone * left[n] / sum(left.values())) <= len(left)


def test_snfs_prunes_by_magnitude_and_grows_by_momentum_in_proportion_to_it():
    model, algorithm, optimizer = made("snfs", every=100)
    run(model, algorithm, optimizer, 4)
    before = {n: (w.detach().clone(), mask.clone()) for n, (w, mask) in algorithm.sparse.items()}
    momentum = {n: optimizer.state[algorithm.layers[n].weight]["momentum_buffer"].abs() for n in before}
    assert all((momentum[n][~mask] != 0).any() for n, (_, mask) in before.items())  # dense gradients
    algorithm.change(optimizer)
    rate = 0.5 * (1 + math.cos(math.pi * 4 / 12)) / 2
    gone = {n: math.ceil(rate * int(mask.sum())) for n, (_, mask) in before.items()}
    means = {n: float(momentum[n][mask].mean()) for n, (_, mask) in before.items()}
    for n, (weight, mask) in before.items():
        stay = weight.abs()[mask].sort().values[gone[n] :]
        new = algorithm.states[n].mask
        grown_here = int(new.sum()) - len(stay)
        share = sum(gone.values()) * means[n] / sum(means.values())
        assert abs(grown_here - share) <= len(before)
        idle = ~mask | (mask & (weight.abs() < stay[0]))
        taken = momentum[n][idle].sort(descending=True).values[:grown_here]
        assert torch.equal(momentum[n][new & idle].sort(descending=True).values, taken)


def test_rigl_swaps_by_magnitude_and_gradient_in_place_of_an_update():
    model, algorithm, optimizer = made("rigl")
    run(model, algorithm, optimizer, 3)
    assert algorithm.due
    backward(model, optimizer, 3)
    weight, mask = (t.clone() for t in algorithm.sparse[LAYER])
    gradient, others = weight.detach() * 0 + model[2].weight.grad, copy.deepcopy(model.state_dict())
    assert (gradient[~mask] != 0).any()
    algorithm.before_update(optimizer)
    optimizer.step()
    algorithm.step(optimizer)
    count = int(0.15 * (1 + math.cos(math.pi * 3 / 9)) * int(mask.sum()))
    stay = mask & (weight.abs() >= weight.abs()[mask].sort().values[count])
    best = gradient.abs()[~stay].sort(descending=True).values[:count]
    now = algorithm.states[LAYER].mask
    assert (stay <= now).all() and torch.equal(gradient.abs()[now & ~stay].sort(descending=True).values, best)
    assert torch.equal(model[2].weight, torch.where(now & mask, weight, 0))
    for key, value in model.state_dict().items():
        if "weight" not in key:
            assert torch.equal(value, others[key])  # no update but of the masks
    assert algorithm.states[LAYER].masked_update
    run(model, algorithm, optimizer, 5, begin=4)
    assert algorithm.iteration == 9 and not algorithm.due  # T_end


def test_gradual_pruning_follows_its_cubic_and_holds_what_it_masks():
    model, algorithm, optimizer = made("gmp")
    first = algorithm.layers[LAYER].weight
    held = None
    for step in range(10):
        run(model, algorithm, optimizer, 1, begin=step)
        t = min((step + 1) // 2 * 2, 6)
        wanted = 0.75 - 0.75 * (1 - t / 6) ** 3
        mask = algorithm.states[LAYER].mask
        reached = 0.0 if mask is None else 1 - float(mask.double().mean())
        assert reached == pytest.approx(1 - kept(first.numel(), wanted) / first.numel())
        if held is not None:
            assert torch.equal(first[~held[0] & ~mask], held[1][~held[0] & ~mask])
        if mask is not None and (step + 1) % 2 == 0 and step < 6:
            assert first.abs()[mask].min() >= first.abs()[~mask].max()
            held = mask.clone(), first.detach().clone()
    assert first[~mask].all()


def test_dst_passes_gradients_through_its_step_by_the_long_tail():
    model, algorithm, optimizer = made("dst", sparsity=0.5)
    run(model, algorithm, optimizer, 6)
    backward(model, optimizer, 6)
    state, layer = algorithm.states[LAYER], algorithm.layers[LAYER]
    w, t, p = (x.detach().numpy().copy() for x in (layer.weight, state.threshold, layer.weight.grad))
    reached = algorithm.reached
    assert t.any() and 0 < reached < 1
    algorithm.before_update(optimizer)
    for f in range(8):
        to_t = 0.0
        for at in np.ndindex(w.shape[1:]):
            q, value, grad = abs(w[f][at]) - t[f], w[f][at], p[f][at]
            h = 2 - 4 * abs(q) if abs(q) <= 0.4 else 0.4 if abs(q) <= 1 else 0.0
            expected = grad * (q > 0) + grad * value * h * np.sign(value)
            assert float(layer.weight.grad[f][at]) == pytest.approx(expected, abs=1e-14)
            to_t -= grad * value * h
        alpha = 0.02 if reached < 0.5 else 0.0
        assert float(state.threshold.grad[f]) == pytest.approx(to_t - alpha * math.exp(-t[f]), abs=1e-14)


def test_dst_gives_a_layer_that_lost_all_its_thresholds_back():
    model, algorithm, _ = made("dst")
    state = algorithm.states[LAYER]
    with torch.no_grad():
        state.threshold.fill_(9.0)
    model(batch(0)[0])
    assert not state.threshold.any() and state.mask.all()


@pytest.mark.parametrize(("sparsity", "m", "n"), [(0.5, 4, 2), (0.8, 4, 1), (0.75, 8, 2), (0.99, 4, 1)])
def test_sr_ste_multiplies_the_pattern_and_draws_the_rest_to_zero(sparsity, m, n):
    model, algorithm, optimizer = made("sr-ste", sparsity=sparsity, m=m)
    backward(model, optimizer, 0)
    weight = model[2].weight.detach()
    expected = structured_mask(weight.numpy(), n, m)
    assert np.array_equal(algorithm.states[LAYER].mask.numpy(), expected)
    assert algorithm.states["0"].mask is None  # two channels
    straight = model[2].weight.grad.clone()
    algorithm.before_update(optimizer)
    assert torch.allclose(model[2].weight.grad, straight + 2e-4 * weight * ~torch.tensor(expected), atol=1e-16)


def test_dsg_estimates_by_its_projection_and_masks_twice():
    model, algorithm, _ = made("dsg", sparsity=0.75)
    x = torch.randn(3, 8, 5, 5, dtype=torch.float64)
    layer, state = algorithm.layers[LAYER], algorithm.states[LAYER]
    out = layer(x)
    matrix = state.matrix(layer.weight).flatten(1).numpy()
    assert set(np.unique(np.round(matrix / matrix.max(), 12))) == {-1.0, 0.0, 1.0}
    assert matrix.max() == pytest.approx(math.sqrt(3 / math.ceil(0.2 * 72)))
    patches = F.unfold(x, 3, padding=1).numpy()
    estimate = (layer.weight.detach().flatten(1).numpy() @ matrix.T) @ (matrix @ patches)
    threshold = np.sort(estimate[0].ravel())[-kept(estimate[0].size, 0.75)]
    chosen = torch.tensor(estimate >= threshold).reshape(out.shape)
    assert torch.equal(out != 0, chosen) and int(chosen[0].sum()) == kept(chosen[0].numel(), 0.75)
    seen = {}
    model[3].register_forward_hook(lambda _, inputs, output: seen.update(norm=output))
    model(batch(0)[0])
    assert torch.equal(seen["norm"] != 0, state.chosen)
    assert algorithm.states["7"].sparsity == 0


def test_forward_top_k_leaves_the_backward_pass_as_it_was():
    model, algorithm, optimizer = made("forward-topk", sparsity=0.0, activations=0.6)
    seen = handed_over(algorithm.layers[LAYER], lambda: backward(model, optimizer, 0))
    assert int((seen["activation"] != 0).sum()) == kept(seen["activation"].numel(), 0.6)
    assert (seen["saved_activation"] != 0).sum() > (seen["activation"] != 0).sum()


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("rigl", {"density": 1}, "option must be one of"),
        ("rigl", {"every": 0}, "every: must be an integer from 1"),
        ("set", {"drop": 1.5}, "drop: must be in"),
        ("gmp", {"begin_at": 0.9}, "begin_at, end_at: must be"),
        ("sr-ste", {"m": 0}, "m: must be an integer"),
        ("set", {"distribution": "momentum"}, "distribution: must be uniform or erk"),
        ("sgd", {}, "algorithm: must be one of swat-u"),
    ],
)
def test_a_wrong_option_is_told(name, options, says):
    with pytest.raises(AccelsimError, match=says):
        build(name, net(), 0.8, steps=10, options=options)


def test_a_state_of_other_layers_is_refused():
    _, algorithm, _ = made("set")
    other = build("set", nn.Linear(4, 4), 0.5, steps=1)
    with pytest.raises(AccelsimError, match="state: must be of layers"):
        algorithm.load_state_dict(other.state_dict())
