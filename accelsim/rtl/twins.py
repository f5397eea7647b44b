"""Which models there are circuits of."""

from __future__ import annotations

from accelsim.errors import MachineError
from accelsim.hardware.accelerators.bit_tactical import BitTactical
from accelsim.hardware.accelerators.dadiannao import DaDianNao
from accelsim.hardware.accelerators.pe_array.mapping import CartesianPEs
from accelsim.hardware.accelerators.pe_array.model import PEArray
from accelsim.hardware.accelerators.scnn import SCNN
from accelsim.hardware.accelerators.tensordash import TensorDash
from accelsim.hardware.accelerators.tiled import TiledParameters
from accelsim.hardware.machine import Machine
from accelsim.rtl.bit_tactical import BitTacticalTwin
from accelsim.rtl.circuit import Circuit
from accelsim.rtl.dadiannao import DaDianNaoTwin
from accelsim.rtl.job import Twin
from accelsim.rtl.scnn import ScatterTwin
from accelsim.rtl.tensordash import TensorDashTwin

# By the model's name: its class and its circuit.
TWINS = {
    "tensordash": (TensorDash, TensorDashTwin),
    "bit_tactical": (BitTactical, BitTacticalTwin),
    "dadiannao": (DaDianNao, DaDianNaoTwin),
    "scnn": (SCNN, ScatterTwin),
    "pe_array": (PEArray, ScatterTwin),
}


def twin_of(machine: Machine) -> Twin:
    """A machine's circuit and its jobs. Raises MachineError where there is none."""
    accelerator = machine.accelerator
    for model, twin in TWINS.values():
        if type(accelerator) is model:
            return twin(machine, accelerator)
    raise MachineError(
        f"{machine.name}: accelerator.model: must be one of {', '.join(TWINS)} for a circuit, got {accelerator.model}"
    )


def dense_of(machine: Machine) -> Circuit:
    """The dense tile of as many multipliers: the same rows, columns and lanes, or a dot product as wide as a PE."""
    a = machine.accelerator
    rows, columns, lanes = 1, 1, a.multipliers
    if isinstance(a, TiledParameters):
        rows, columns, lanes = a.rows, a.columns, a.lanes
    elif isinstance(a, CartesianPEs):
        lanes = a.activation_width * a.weight_width
    dense = DaDianNao(model="dadiannao", tiles=1, rows=rows, columns=columns, lanes=lanes)
    return DaDianNaoTwin(machine.model_copy(update={"name": "dense"}), dense).circuit
