"""The trained network, in ONNX Runtime: no PyTorch is needed to ask it."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime

DIGITS = 10


class Prediction(NamedTuple):
    """What the network says to one image."""

    digit: int
    probabilities: list[float]  # of the ten digits

    @property
    def confidence(self) -> float:
        return self.probabilities[self.digit]


class Network:
    """A network that `python -m lab export` has written; `about` is what the file says of it.

    Raises FileNotFoundError for a missing file, and ValueError for one that is no such network.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no network {path}, expected a file that `python -m lab export` has written"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # one image is too little to share
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            about = self._session.get_modelmeta().custom_metadata_map
            self.about: dict[str, object] = {
                "name": about["name"],
                "recipe": json.loads(about["recipe"]),
                "seed": int(about["seed"]),
                "parameters": int(about["parameters"]),
                "accuracy": float(about["accuracy"]),
                "tested_on": about["tested_on"],
            }
            self.predict(np.zeros((28, 28), dtype=np.uint8))
        except Exception:  # noqa: BLE001 (random bytes make the runtime raise nearly anything)
            raise ValueError(f"{path} is not a network that `python -m lab export` has written") from None

    @property
    def name(self) -> str:
        """Which network it is, for whoever reads a database later."""
        return f"{self.about['name']}, seed {self.about['seed']}"

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Of uint8 images of shape (N, 28, 28): float32 of shape (N, 10)."""
        return self._session.run(["logits"], {"images": images[:, None]})[0]

    def predict(self, image: np.ndarray) -> Prediction:
        """Of one uint8 image of shape (28, 28)."""
        logits = self.logits(image[None])[0].astype(np.float64)
        chances = np.exp(logits - logits.max())
        chances /= chances.sum()
        return Prediction(int(chances.argmax()), chances.tolist())
