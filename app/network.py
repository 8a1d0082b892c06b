"""The trained network, run by ONNX Runtime, without PyTorch."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from app.doubt import Doubt
from app.runtime import open_network, softmax

DIGITS = 10


class Prediction(NamedTuple):
    """The prediction for one image."""

    digit: int
    probabilities: list[float]  # one per digit, 0 to 9
    doubt: str = ""  # why the digit may be none, see `app.doubt`

    @property
    def confidence(self) -> float:
        return self.probabilities[self.digit]


class Network:
    """A network written by `python -m lab export`; `about` holds what the file's `metadata` says about it.

    Raises FileNotFoundError if the file is missing, and ValueError if it is not such a network.
    """

    def __init__(self, path: Path) -> None:
        self._doubt = Doubt()
        if not path.is_file():
            raise FileNotFoundError(f"there is no network {path}, expected a file written by `python -m lab export`")
        self.file = path
        try:
            self._session = open_network(path)
            about = self._session.get_modelmeta().custom_metadata_map
            self.metadata: dict[str, str] = about
            self.about: dict[str, object] = {
                "name": about["name"],
                "recipe": json.loads(about["recipe"]),
                "seed": int(about["seed"]),
                "parameters": int(about["parameters"]),
                "accuracy": float(about["accuracy"]),
                "tested_on": about["tested_on"],
                "temperature": float(about.get("temperature", 1)),
            }
            self.predict(np.zeros((28, 28), dtype=np.uint8))
        except Exception:  # noqa: BLE001 (on corrupt files, the runtime raises almost anything)
            raise ValueError(f"{path} is not a network written by `python -m lab export`") from None

    @property
    def temperature(self) -> float:
        """What the logits are divided by, so that a confidence of 90 % is right in 90 % of cases."""
        return float(str(self.about["temperature"]))

    @property
    def name(self) -> str:
        """The name and seed, stored with each prediction in the database."""
        return f"{self.about['name']}, seed {self.about['seed']}"

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return logits, float32 of shape (N, 10), for uint8 images of shape (N, 28, 28)."""
        return self._session.run(["logits"], {"images": images[:, None]})[0]

    def predict(self, image: np.ndarray) -> Prediction:
        """Predict the digit in one uint8 image of shape (28, 28)."""
        (chances,) = softmax(self.logits(image[None]), self.temperature)
        return Prediction(int(chances.argmax()), chances.tolist(), self._doubt.about(image, float(chances.max())))
