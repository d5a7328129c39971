"""TensorFlow Serving: its REST and gRPC, its flags and its configuration files."""
