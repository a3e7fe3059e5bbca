"""Checkpoints side by side: time, memory and quality, in PyTorch and as exported files."""
