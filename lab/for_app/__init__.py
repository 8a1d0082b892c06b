"""What the app gets from here: its networks as ONNX, and how well they read what people draw and photograph."""
