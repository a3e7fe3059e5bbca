"""The front door: `schubert_hf.prune`, which the command `schubert prune` and examples/prune.py call."""
