"""The Triton model repository: publish, roll back, describe."""
