"""Text and examples: files, folders and datasets to documents, pairs, and a stream of examples."""
