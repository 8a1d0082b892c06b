"""The trained network, run by ONNX Runtime, without PyTorch."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime

DIGITS = 10


class Prediction(NamedTuple):
    """The prediction for one image."""

    digit: int
    probabilities: list[float]  # one per digit, 0 to 9

    @property
    def confidence(self) -> float:
        return self.probabilities[self.digit]


def open_session(network: Path | bytes) -> onnxruntime.InferenceSession:
    """Open an ONNX file, or its content, to run on one thread. Raises almost anything on a corrupt file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # one image is too little work to split
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])


class Network:
    """A network written by `python -m lab export`; `about` holds what the file's `metadata` says about it.

    Raises FileNotFoundError if the file is missing, and ValueError if it is not such a network.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"there is no network {path}, expected a file written by `python -m lab export`")
        self.file = path
        try:
            self._session = open_session(path)
            about = self._session.get_modelmeta().custom_metadata_map
            self.metadata: dict[str, str] = about
            self.about: dict[str, object] = {
                "name": about["name"],
                "recipe": json.loads(about["recipe"]),
                "seed": int(about["seed"]),
                "parameters": int(about["parameters"]),
                "accuracy": float(about["accuracy"]),
                "tested_on": about["tested_on"],
            }
            self.predict(np.zeros((28, 28), dtype=np.uint8))
        except Exception:  # noqa: BLE001 (on corrupt files, the runtime raises almost anything)
            raise ValueError(f"{path} is not a network written by `python -m lab export`") from None

    @property
    def name(self) -> str:
        """The name and seed, stored with each prediction in the database."""
        return f"{self.about['name']}, seed {self.about['seed']}"

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return logits, float32 of shape (N, 10), for uint8 images of shape (N, 28, 28)."""
        return self._session.run(["logits"], {"images": images[:, None]})[0]

    def predict(self, image: np.ndarray) -> Prediction:
        """Predict the digit in one uint8 image of shape (28, 28)."""
        logits = self.logits(image[None])[0].astype(np.float64)
        chances = np.exp(logits - logits.max())
        chances /= chances.sum()
        return Prediction(int(chances.argmax()), chances.tolist())
