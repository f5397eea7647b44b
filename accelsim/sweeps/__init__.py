"""Sweeps: many machines, traces and sparsities through the one pipeline, nothing lost and nothing twice."""
