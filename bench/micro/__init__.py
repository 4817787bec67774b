"""Micro-benchmarks: each guards one decision or one hot path."""
