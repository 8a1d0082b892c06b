"""Run networks with ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnxruntime


def open_network(network: Path | bytes) -> onnxruntime.InferenceSession:
    """Open an ONNX file, or its content, to run on one thread. On corrupt files, the runtime raises almost anything."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # one image is too little work to split
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])


def softmax(logits: np.ndarray, temperature: float = 1) -> np.ndarray:
    """Turn logits of shape (N, classes) into chances, float64 of the same shape.

    A temperature above 1 makes them less extreme (Guo et al., 2017, "On Calibration of Modern Neural Networks").
    """
    scaled = logits.astype(np.float64) / temperature
    chances = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return chances / chances.sum(axis=1, keepdims=True)
