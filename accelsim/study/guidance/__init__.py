"""What limits a machine, layer by layer, and what to change: sentences, each with a what-if that was simulated.

``changes`` knows what may be changed against each cause of lost slots, ``advise`` simulates it, ``words`` says it.
docs/guidance.md.
"""

from accelsim.study.guidance.advise import Advice, Guidance, WhatIf, guide
from accelsim.study.guidance.words import limit, lines, report, sentence

__all__ = ["Advice", "Guidance", "WhatIf", "guide", "limit", "lines", "report", "sentence"]
