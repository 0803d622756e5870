"""From a run to ONNX files and Triton configurations."""
