"""LiteRT: the .tflite file behind Tandem's server."""

from serving.targets.open_inference import OpenInferenceTarget

TARGET = OpenInferenceTarget(name="litert", source="tensorflow")
