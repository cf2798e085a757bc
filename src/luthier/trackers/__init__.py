"""Training's numbers for other programs: TensorBoard, MLflow, Weights & Biases, trackio."""

from luthier.trackers.tracker import Log, Tracker, build_trackers, require_trackers, tracking

__all__ = ["Log", "Tracker", "build_trackers", "require_trackers", "tracking"]
