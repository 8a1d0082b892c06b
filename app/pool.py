"""The worker threads that turn pictures into predictions."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from fastapi import HTTPException

from app import digit
from app.network import Network, Prediction


class PredictionPool:
    """Predicts in a few worker threads; refuses pictures once the queue is full."""

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
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._predict, body)
        finally:
            self._free += 1

    def _predict(self, body: bytes) -> tuple[np.ndarray, Prediction]:
        image = digit.prepare(body)
        return image, self._network.predict(image)

    def close(self) -> None:
        self._pool.shutdown()
