"""Building blocks of networks that export to ONNX."""
