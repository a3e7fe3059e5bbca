"""Milliseconds of a shape on this machine: targets such as 12ms, and times for a model's page."""
