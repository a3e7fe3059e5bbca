"""Encoders of sentence-transformers: sentence encoders and cross-encoders, opened, and saved with a smaller model."""
