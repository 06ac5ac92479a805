"""Shards of a grid on several workers: pace, crews, payloads, recovery, checkpoints."""
