"""The recurrences and the adaptive rules on CUDA in Triton; ``momentumrnn.kernels.fused`` reaches cuDNN."""
