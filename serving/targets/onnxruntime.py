"""ONNX Runtime: the .onnx file behind Tandem's server."""

from serving.targets.open_inference import OpenInferenceTarget

TARGET = OpenInferenceTarget(name="onnxruntime", source="pytorch")
