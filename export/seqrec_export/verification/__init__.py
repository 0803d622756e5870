"""The gate: what is exported gives what PyTorch gives, or it is not published."""
