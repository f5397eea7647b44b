"""What computes it: machines, accelerators and their kernels. Knows no files of tensors and no networks."""
