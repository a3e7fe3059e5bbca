"""Alphas: trainable scales on units (Khetan & Karnin 2020, section 3)."""

from .alphas import FoldError, GatedObjective, Gates, fold_tensors

__all__ = ["FoldError", "GatedObjective", "Gates", "fold_tensors"]
