"""Sequential recommenders from interaction logs to an answer from Triton."""
