"""What a model can be exported to."""

SUFFIXES = {"onnx": ".onnx", "torchexport": ".pt2", "aoti": ".pt2"}
