"""Look inside a network: the feature maps of its layers, and what each position of the last ones adds to each logit."""

import base64
import json
from functools import cached_property

import numpy as np
import onnxruntime

from app.network import Network
from app.runtime import open_network

WEIGHTS = "class_weights"


class Inside:
    """The inside of a network, as far as the metadata of its file describes it: `lab/for_app/maps.py` writes that.

    Nothing is computed, and no memory is used, before the first look.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._layers = json.loads(network.metadata.get("maps", "[]"))

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        """One that computes the maps as well: the addition to the file makes them outputs."""
        return open_network(self._network.file.read_bytes() + base64.b64decode(self._network.metadata["inside"]))

    def look(self, image: np.ndarray) -> dict[str, object]:
        """Return the feature maps of one uint8 image of shape (28, 28), and the class maps.

        layers:    for each layer its channels, side, receptive field (`field`), `jump` and `first`, which say what a
                   position sees, and its maps as base64: a byte per value, from `lowest` (0) to `largest` (255)
        class_map: what each position of the last maps adds to each logit, lists of shape (10, side, side), and what the
                   network adds everywhere (`bias`); None if the logits are not a sum over these positions

        The list of layers is empty for a file without maps, and for a network without convolutions.
        """
        if not self._layers:
            return {"layers": [], "class_map": None}
        names = [layer["name"] for layer in self._layers]
        outputs = [output.name for output in self._session.get_outputs()]
        logits, *rest = self._session.run(["logits", *names, *outputs[1 + len(names) :]], {"images": image[None, None]})
        maps = [found[0] for found in rest[: len(names)]]
        class_map = _class_map(logits[0], maps[-1], rest[-1]) if WEIGHTS in outputs else None
        return {"layers": [_as_bytes(*both) for both in zip(self._layers, maps)], "class_map": class_map}


def _as_bytes(layer: dict[str, object], maps: np.ndarray) -> dict[str, object]:
    lowest, largest = min(0.0, float(maps.min())), float(maps.max())
    pixels = ((maps - lowest) * (255 / max(largest - lowest, 1e-9))).round().astype(np.uint8)
    described = {name: value for name, value in layer.items() if name != "name"}
    return described | {"lowest": lowest, "largest": largest, "maps": base64.b64encode(pixels.tobytes()).decode()}


def _class_map(logits: np.ndarray, maps: np.ndarray, weights: np.ndarray) -> dict[str, object]:
    added = (weights * maps).sum(axis=1)
    return {"added": added.tolist(), "bias": (logits - added.sum(axis=(1, 2))).tolist(), "logits": logits.tolist()}
