"""What ``momentumrnn sweep`` is made of: the space, the study's file, the trials, the report."""
