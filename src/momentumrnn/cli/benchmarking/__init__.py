"""Measuring layers beside ``torch.nn``: in turns, in one process, reported as ratios."""
