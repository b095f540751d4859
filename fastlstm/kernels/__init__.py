"""Compiled steps over explicit vectors. Numba only: arrays and sizes, nothing of files or torch."""
