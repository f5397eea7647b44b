"""All Numba: plain arrays in, plain arrays out. Each kernel has a naive twin in tests/reference.py.

Kernels are compiled once (``cache=True``) and release the GIL: ``simulate`` runs layers on as many threads as asked.
"""
