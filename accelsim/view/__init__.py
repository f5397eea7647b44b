"""``accelsim view``: a local page over traces, runs and sweeps, whose sliders simulate again.

``live`` counts what sliders ask for, ``results`` reads what was counted, ``points`` is what both give; ``figures`` and
``layout`` say what is seen of them, ``app`` connects it, ``server`` serves it to this machine alone. All Dash is here.
"""
