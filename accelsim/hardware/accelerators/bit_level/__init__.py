"""The bit-level machines: what their columns hold, how long a step takes, and where the slots went."""
