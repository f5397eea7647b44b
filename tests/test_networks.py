"""Are the layer tables those of the real networks?"""

import pytest

import accelsim
from accelsim.errors import AccelsimError
from accelsim.workload.geometry import Geometry
from accelsim.workload.networks import NETWORKS, network

# Trained parameters, batch norms and biases included. ImageNet: torchvision's documentation of its models. CIFAR: the
# counts that the public PyTorch code of each network prints for 10 classes; VGG-16 with two hidden layers of 4096.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "wide_resnet50_2": 68_883_240,
    "densenet121": 7_978_856,
    "cifar_resnet18": 11_173_962,
    "cifar_wrn16_8": 10_961_370,
    "cifar_densenet121": 6_956_298,
    "cifar_vgg16": 33_646_666,
}
# Multiply-adds of one forward pass in billions, as commonly quoted for 224×224.
BILLIONS = {"resnet18": 1.81, "resnet50": 4.09, "wide_resnet50_2": 11.40, "densenet121": 2.83}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_parameters_add_up_to_the_well_known_total(name):
    assert network(name).parameters == PARAMETERS[name]


@pytest.mark.parametrize("name", BILLIONS)
def test_the_multiplications_are_the_well_known_ones(name):
    assert sum(layer.geometry.multiplications for layer in network(name).layers) / 1e9 == pytest.approx(
        BILLIONS[name], abs=0.01
    )


def test_resnet50_is_that_of_the_shipped_trace():
    with accelsim.open_trace("resnet50.npz") as trace:
        for snapshot in trace.snapshots:
            captured = [
                (layer.name, layer.kind, layer.geometry, "input_grad" in layer.passes) for layer in snapshot.layers
            ]
            ours = [(layer.name, layer.kind, layer.geometry, not layer.first) for layer in network("resnet50").layers]
            assert ours == captured


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_are_those_of_the_pytorch_models(name):
    """Every convolution, linear layer and batch norm, in forward order, as an image passes through it."""
    torch = pytest.importorskip("torch")
    from accelsim.capture.models import build

    model, seen, norms = build(name).eval(), [], []

    def watch(called, module):
        def hook(module, inputs, output):
            _, c, *size = inputs[0].shape
            if isinstance(module, torch.nn.Conv2d):
                pad = (module.padding[0],) * 2 + (module.padding[1],) * 2
                seen.append((called, Geometry(c, *size, module.out_channels, module.kernel_size, module.stride, pad)))
            elif isinstance(module, torch.nn.Linear):
                seen.append((called, Geometry(c, 1, 1, module.out_features, (1, 1))))
            else:
                norms.append((called, c, *size))

        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear | torch.nn.BatchNorm2d):
            module.register_forward_hook(hook)

    for called, module in model.named_modules():
        watch(called, module)
    side = 32 if name.startswith("cifar") else 224
    with torch.no_grad():
        model(torch.zeros(1, 3, side, side))
    table = network(name)
    assert [(layer.name, layer.geometry) for layer in table.layers] == seen
    assert sorted((n.name, n.channels, n.height, n.width) for n in table.norms) == sorted(norms)
    assert table.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_only_the_first_layer_is_first_and_names_are_unique(name):
    table = network(name)
    assert [layer.first for layer in table.layers] == [True] + [False] * (len(table.layers) - 1)
    assert len({layer.name for layer in table.layers}) == len(table.layers)
    assert list(table.weight_shapes) == [layer.name for layer in table.layers]


def test_the_last_layer_has_as_many_outputs_as_there_are_classes():
    assert network("cifar_vgg16", classes=100).layers[-1].geometry.filters == 100
    assert network("cifar_vgg16").weight_shapes["classifier.6"] == (10, 4096)


def test_an_unknown_network_is_named_with_the_known_ones():
    with pytest.raises(AccelsimError, match=r"network: must be one of resnet50, .*, got lenet"):
        network("lenet")
