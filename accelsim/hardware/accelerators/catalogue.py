"""The table of models. A new machine is one file beside this one, and one line below."""

from accelsim.hardware.accelerators.bit_tactical import BitTactical
from accelsim.hardware.accelerators.cambricon_x import CambriconX
from accelsim.hardware.accelerators.cnvlutin import Cnvlutin
from accelsim.hardware.accelerators.dadiannao import DaDianNao
from accelsim.hardware.accelerators.ideal import Ideal
from accelsim.hardware.accelerators.pe_array.model import PEArray
from accelsim.hardware.accelerators.structured import Structured
from accelsim.hardware.accelerators.tensordash import TensorDash

MODELS = (DaDianNao, BitTactical, TensorDash, PEArray, CambriconX, Cnvlutin, Structured, Ideal)
