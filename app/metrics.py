"""Metrics for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.network import DIGITS
from app.recorder import Recorder


class Metrics:
    """What the server counts and measures, in a registry of its own."""

    def __init__(self, recorder: Recorder) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "app_requests", "Requests by route and status", ["route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "app_predict_seconds",
            "Seconds from receiving a picture to its prediction",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.04, 0.1, 0.5, 2),
            registry=self.registry,
        )
        predictions = Counter("app_predictions", "Predictions by digit", ["digit"], registry=self.registry)
        self._predictions = [predictions.labels(digit) for digit in range(DIGITS)]
        Gauge("app_spool_rows", "Rows not yet in the database", registry=self.registry).set_function(recorder.waiting)
        lost = "Predictions lost because the spool was full or not writable"
        Gauge("app_predictions_not_recorded", lost, registry=self.registry).set_function(lambda: recorder.dropped)
        up = "1 if the last write to the database succeeded, else 0"
        Gauge("app_database_up", up, registry=self.registry).set_function(lambda: float(recorder.online))

    def predicted(self, digit: int, seconds: float) -> None:
        """Count a prediction that took that long."""
        self._predictions[digit].inc()
        self._seconds.observe(seconds)
