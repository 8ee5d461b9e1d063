"""What ``momentumrnn reproduce`` is made of."""
