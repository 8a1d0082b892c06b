"""Metrics for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.recorder import Recorder


class Metrics:
    """What the server counts and measures, in a registry of its own."""

    def __init__(self, recorder: Recorder) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "app_requests", "Requests by route and status", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "app_predict_seconds",
            "Seconds from receiving a picture to its prediction",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.04, 0.1, 0.5, 2),
            registry=self.registry,
        )
        self.predictions = Counter("app_predictions", "Predictions by digit", ["digit"], registry=self.registry)
        Gauge("app_spool_rows", "Rows not yet in the database", registry=self.registry).set_function(recorder.waiting)
        lost = "Predictions lost because the spool was full or not writable"
        Gauge("app_predictions_not_recorded", lost, registry=self.registry).set_function(lambda: recorder.dropped)
        up = "1 if the last write to the database succeeded, else 0"
        Gauge("app_database_up", up, registry=self.registry).set_function(lambda: float(recorder.online))
