"""The FLOP model of the paper's appendix A.3, from layer shapes and per-layer densities.

    forward          s1 · F·C·R·S · output positions        (equation 4)
    input gradient   s1 · F·C·R·S · input positions         (equation 5)
    weight gradient  s2 · F·C·R·S · input positions         (equation 6)

s1 is the density of the weight, s2 that of the saved activation; a FLOP is a multiply-add, and everything is for one
sample. Which positions each pass is counted at, and which layers are in, is a :class:`Counting`: the paper's words
leave it open, and its figures do not fit its words (``conventions`` finds out). "FLOPs ↓" is against the
dense network counted in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from accelsim.errors import AccelsimError
from accelsim.workload.lowering import PASSES
from accelsim.workload.networks import Network, NetworkLayer
from accelsim.workload.sparsify import check_sparsity, erk, kept, uniform
from accelsim.workload.trace import Snapshot

# "The default activation sparsity generally vary between 30 - 50%, for our calculation we assumed 50%" (A.3).
DEFAULT_ZEROS = 0.5


@dataclass(frozen=True)
class Counting:
    """What is counted.

    Parameters
    ----------
    input_grad_at, weight_grad_at : {"input", "output"}
        Positions of that pass: H×W as equations 5 and 6 have it, or P×Q, what a convolution really multiplies. They
        differ where the stride does.
    first_input_grad : bool
        Whether the first layer's input gradient, which nobody needs, is in.
    linear : bool
        Whether linear layers are in.
    batch_norm : bool
        Whether batch norms are in, dense, with a multiply-add per element and pass.
    natural_zeros : bool
        Whether the weight gradient also skips zeros that ReLU leaves where Top-K would keep more than ReLU does.
    """

    input_grad_at: str = "input"
    weight_grad_at: str = "output"
    first_input_grad: bool = True
    linear: bool = True
    batch_norm: bool = False
    natural_zeros: bool = True


@dataclass(frozen=True)
class Saving:
    """How "Act ↓", the share of saved activations masked to zero, is counted.

    Parameters
    ----------
    first_sparse, first_counted : bool
        Whether the first layer's input, the image, is sparsified, and whether it is part of the whole.
    linear : bool
        Whether inputs of linear layers are in.
    norms : bool
        Whether inputs of batch norms, which stay dense (A.8), are part of the whole.
    """

    first_sparse: bool = True
    first_counted: bool = True
    linear: bool = False
    norms: bool = True


@dataclass(frozen=True)
class Scheme:
    """Per-layer densities of a network: of weights, and of saved activations after Top-K and ReLU.

    ``topk`` are the densities that Top-K alone would leave of the saved activations; ``image`` what it would leave of
    the first layer's, were that sparsified although its weights are dense.
    """

    network: Network
    weight: dict[str, float]
    saved: dict[str, float]
    topk: dict[str, float]
    image: float


@dataclass(frozen=True)
class Columns:
    """A row of the paper's Tables 2–5: percentages saved (0…100), and ``compression`` in times."""

    weight: float
    activation: float
    training: float
    saved: float
    compression: float
    inference: float


def swat(
    network: Network,
    sparsity: float,
    distribution: str = "uniform",
    structure: str = "unstructured",
    natural_zeros: float = 0.0,
    first_dense: bool = True,
) -> Scheme:
    """SWAT-U or SWAT-ERK: a layer's weights and saved activations have the same target (section 3.3.2).

    Parameters
    ----------
    network : Network
    sparsity : float
        In [0, 1).
    distribution : {"uniform", "erk"}
        Uniform leaves the first layer dense, unless ``first_dense`` is false; ERK treats it as any other.
    structure : {"unstructured", "channel"}
        "channel" keeps ⌈(1 − sparsity)·C⌉ whole kernels of each filter (3.3.1); activations stay fine-grained.
    natural_zeros : float
        Share of zeros that ReLU leaves in a layer's input, the image aside. Top-K never makes a zero a non-zero, so
        that a layer that may keep more saves no more than ReLU left.
    first_dense : bool

    Raises
    ------
    AccelsimError
        If a sparsity is outside [0, 1), or a name is unknown.
    """
    shapes = network.weight_shapes
    if distribution == "uniform":
        weight = uniform(shapes, sparsity, None if first_dense else ())
    elif distribution == "erk":
        weight = erk(shapes, sparsity)
    else:
        raise AccelsimError(f"distribution: must be uniform or erk, got {distribution}")
    topk = dict(weight)
    image = 1 - sparsity if distribution == "uniform" else topk[network.layers[0].name]
    if structure == "channel":
        weight = {
            layer.name: 1.0 if weight[layer.name] == 1 else _channels_kept(layer, 1 - weight[layer.name])
            for layer in network.layers
        }
    elif structure != "unstructured":
        raise AccelsimError(f"structure: must be unstructured or channel, got {structure}")
    return Scheme(network, weight, _below_relu(network, topk, natural_zeros), topk, image)


def sparse_weights(
    network: Network, sparsity: float, dense: Iterable[str], default_zeros: float = DEFAULT_ZEROS
) -> Scheme:
    """A sparse learning algorithm that leaves activations alone: RigL, SET with a uniform sparsity.

    Parameters
    ----------
    network, sparsity
        As :func:`swat`.
    dense : iterable of str
        Layers whose weights stay dense.
    default_zeros : float
        A.3's "default activation sparsity", of every saved activation but the image.
    """
    weight = uniform(network.weight_shapes, sparsity, dense)
    everything = dict.fromkeys(weight, 1.0)
    return Scheme(network, weight, _below_relu(network, everything, default_zeros), everything, 1.0)


def measured(network: Network, snapshot: Snapshot) -> Scheme:
    """Densities that a captured snapshot of the network really has, whatever algorithm made them.

    Raises
    ------
    AccelsimError
        If the snapshot's layers are not the network's.
    """
    table = {layer.name: layer.geometry for layer in network.layers}
    if {layer.name: layer.geometry for layer in snapshot.layers} != table:
        raise AccelsimError(f"snapshot {snapshot.name}: must have the layers of {network.name}, no more and no fewer")
    weight: dict[str, float] = {}
    saved: dict[str, float] = {}
    for layer in snapshot.layers:
        name = "saved_activation" if "saved_activation" in layer.tensors else "activation"
        for densities, tensor in ((weight, layer.tensor("weight")), (saved, layer.tensor(name))):
            densities[layer.name] = float((tensor != 0).mean())
    return Scheme(network, weight, saved, saved, saved[network.layers[0].name])


def columns(scheme: Scheme, counting: Counting | None = None, saving: Saving | None = None) -> Columns:
    """The paper's columns of one row.

    ``activation`` is weighted by each layer's input, as section 4.2 says; over the layers that ``saving`` counts.
    """
    counting, saving = counting or Counting(), saving or Saving()
    dense, sparse = passes(scheme, counting)
    weights = sum(layer.weights for layer in scheme.network.layers)
    left = sum(layer.weights * scheme.weight[layer.name] for layer in scheme.network.layers)
    zeros, inputs, norms = _saved_zeros(scheme, saving)
    return Columns(
        weight=100 * (1 - left / weights),
        activation=100 * zeros / inputs,
        training=100 * (1 - sum(sparse.values()) / sum(dense.values())),
        saved=100 * zeros / (inputs + norms),
        compression=weights / left,
        inference=100 * (1 - sparse["fwd"] / dense["fwd"]),
    )


def passes(scheme: Scheme, counting: Counting | None = None) -> tuple[dict[str, float], dict[str, float]]:
    """Multiply-adds of one sample by pass: of the dense network, and of the sparse one."""
    counting = counting or Counting()
    dense, sparse = dict.fromkeys(PASSES, 0.0), dict.fromkeys(PASSES, 0.0)
    saved = scheme.saved if counting.natural_zeros else scheme.topk
    for layer in scheme.network.layers:
        if layer.kind == "linear" and not counting.linear:
            continue
        density = scheme.weight[layer.name]
        for which, left in (("fwd", density), ("input_grad", density), ("weight_grad", saved[layer.name])):
            if which == "input_grad" and layer.first and not counting.first_input_grad:
                continue
            work = layer.weights * _positions(layer, which, counting)
            dense[which] += work
            sparse[which] += work * left
    if counting.batch_norm:
        for which in PASSES:
            work = sum(norm.inputs for norm in scheme.network.norms)
            dense[which] += work
            sparse[which] += work
    return dense, sparse


def _positions(layer: NetworkLayer, which: str, counting: Counting) -> int:
    at = {"fwd": "output", "input_grad": counting.input_grad_at, "weight_grad": counting.weight_grad_at}[which]
    g = layer.geometry
    return g.output[0] * g.output[1] if at == "output" else g.height * g.width


def _saved_zeros(scheme: Scheme, saving: Saving) -> tuple[float, int, int]:
    """Saved activations that are zero, all of them, and inputs of batch norms beside them."""
    zeros, inputs = 0.0, 0
    for layer in scheme.network.layers:
        if (layer.kind == "linear" and not saving.linear) or (layer.first and not saving.first_counted):
            continue
        density = scheme.image if layer.first and saving.first_sparse else scheme.saved[layer.name]
        inputs += layer.inputs
        zeros += (1 - density) * layer.inputs
    norms = sum(norm.inputs for norm in scheme.network.norms) if saving.norms else 0
    return zeros, inputs, norms


def _channels_kept(layer: NetworkLayer, sparsity: float) -> float:
    channels = layer.geometry.channels // layer.geometry.groups
    return kept(channels, sparsity) / channels


def _below_relu(network: Network, topk: dict[str, float], zeros: float) -> dict[str, float]:
    """Densities of saved activations, where ReLU leaves that share of zeros in every input but the image."""
    most = 1 - check_sparsity(zeros, "natural zeros")
    return {layer.name: min(topk[layer.name], 1.0 if layer.first else most) for layer in network.layers}
