"""Does a model give a checkpoint its strides and maps?"""

import numpy as np
import pytest
from importing import run

from accelsim.workload.trace import Trace

torch = pytest.importorskip("torch")

NET = """
import torch
from torch import nn

print("imported")

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2))
        self.deep = nn.Conv2d(4, 6, 3, groups=2, padding="same")
        self.up = nn.ConvTranspose2d(6, 2, 2)
        self.fc = nn.Linear(2, 5)

    def forward(self, x):
        return self.fc(self.up(self.deep(self.stem(x))).mean((2, 3)))
"""


def test_a_model_of_ones_own_is_the_topology_of_its_weights(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mynet.py").write_text(NET)
    namespace = {}
    exec(NET.replace('print("imported")', ""), namespace)
    net = namespace["Net"]()
    net.deep.weight.data[:, 0] = 0
    torch.save({"epoch": 1, "state_dict": net.state_dict()}, "w.pth")
    command = ["import", "w.pth", "--model", "mynet:Net", "--input", "2,3,9,8", "--out", "t.npz"]
    assert run(*command) == 2
    told = capsys.readouterr()
    assert told.err == "accelsim: error: mynet:Net: importing a model runs its code; --allow-code says that it may\n"
    assert "imported" not in told.out
    assert run(*command, "--allow-code") == 0
    assert "left out: up, ConvTranspose2d" in capsys.readouterr().out
    with Trace.open("t.npz") as trace:
        stem, deep, fc = trace.snapshots[0].layers
        assert (stem.geometry.stride, stem.geometry.padding, stem.geometry.dilation) == ((2, 1), (1,) * 4, (1, 2))
        assert (deep.geometry.groups, deep.geometry.padding, deep.geometry.output) == (2, (1,) * 4, (5, 8))
        assert [layer.samples for layer in (stem, deep, fc)] == [2, 2, 2] and deep.tensor("weight").mean() == 0.5
        assert np.array_equal(fc.tensor("weight")[:, :, 0, 0], net.fc.weight.detach().numpy() != 0)
    assert run(*command, "--allow-code", "--input", "2,4,9,8", "--force") == 2
    assert "mynet:Net: must run on an input of 2×4×9×8: " in capsys.readouterr().err


def test_a_model_of_ours_needs_no_consent(tmp_path, capsys):
    from accelsim.capture.models import build

    torch.save(build("cifar_resnet18").state_dict(), tmp_path / "w.pt")
    command = ["import", tmp_path / "w.pt", "--model", "cifar_resnet18", "--input", "1,3,32,32"]
    assert run(*command, "--out", tmp_path / "t.npz") == 0
    assert "read: 100 %" in capsys.readouterr().out
