"""accelsim: what would sparsity in your training run buy on an accelerator? Counted, cycle by cycle."""

__version__ = "0.1.0"
