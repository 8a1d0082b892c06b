"""Turn pictures into predictions: large ones in worker threads, small ones at once."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from fastapi import HTTPException

from app import digit
from app.network import Network, Prediction


class PredictionPool:
    """Predicts in a few worker threads, and refuses pictures once the queue is full.

    A small picture, such as the page's, is predicted at once: handing it to a thread would take as long.
    """

    def __init__(self, network: Network, workers: int, waiting: int) -> None:
        self._network = network
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="predictions")
        self._free = workers + waiting

    async def predict(self, body: bytes) -> tuple[np.ndarray, Prediction]:
        """Return the prepared image, uint8 of shape (28, 28), and its prediction.

        Raises what `digit.prepare` raises, and HTTPException (503) if the queue is full.
        """
        if self._free == 0:
            raise HTTPException(503, "too many pictures are waiting, try again in a moment", {"Retry-After": "1"})
        self._free -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self.predict_now, body)
        finally:
            self._free += 1

    def predict_now(self, body: bytes) -> tuple[np.ndarray, Prediction]:
        """Return the same, and raise what `digit.prepare` raises; nothing else is answered meanwhile."""
        image = digit.prepare(body)
        return image, self._network.predict(image)

    def close(self) -> None:
        self._pool.shutdown()
