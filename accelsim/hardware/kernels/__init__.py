"""All Numba: plain arrays in, plain arrays out. Each kernel has a naive twin that the tests hold it against.

Kernels release the GIL: ``simulate`` runs layers on as many threads as asked.
"""
