"""Machines as circuits: SystemVerilog that is simulated job by job beside our counts, and synthesized for its area."""
