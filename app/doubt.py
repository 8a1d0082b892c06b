"""Say where an answer is doubtful: a network that has only seen digits calls everything a digit.

A second, smaller network was trained to tell one digit from several, and from letters, faces, taps and doodles
(`python -m lab doubt`). Its threshold was chosen on MNIST's training images, so that few real digits are doubted.
"""

from pathlib import Path

import numpy as np

from app.runtime import open_network, softmax

FILE = Path(__file__).parent / "doubt.onnx"
ONE, SEVERAL, NONE = range(3)  # what the network tells apart: its first three outputs
SURE = 0.6  # a calibrated confidence below this is hardly better than a guess between two digits


class Doubt:
    """The network that tells one digit from other drawings. Raises ValueError if its file cannot be used."""

    def __init__(self, path: Path = FILE) -> None:
        try:
            self._session = open_network(path)
            self.least = float(self._session.get_modelmeta().custom_metadata_map["least"])
        except Exception:  # noqa: BLE001 (on corrupt files, the runtime raises almost anything)
            raise ValueError(f"{path} is not a network written by `python -m lab doubt`") from None

    def kinds(self, images: np.ndarray) -> np.ndarray:
        """The chances that each image shows one digit, several, or none: shape (N, 3), for uint8 of (N, 28, 28)."""
        return softmax(self._session.run(["logits"], {"images": images[:, None]})[0][:, : NONE + 1])

    def about(self, image: np.ndarray, confidence: float) -> str:
        """Return "more than one digit", "not a digit", "not sure", or "" if there is no reason to doubt.

        `image` is uint8 of shape (28, 28); `confidence` is that of the prediction, from 0 to 1.
        """
        one, several, none = self.kinds(image[None])[0]
        if one < self.least:
            return "more than one digit" if several > none else "not a digit"
        return "not sure" if confidence < SURE else ""
