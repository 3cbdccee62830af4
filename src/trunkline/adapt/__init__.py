"""Adapting one task from few labels on the frozen encoder, and sweeps over tasks, encoders and seeds."""

from trunkline.adapt.fit import Adapted, TaskData, adapt

__all__ = ["Adapted", "TaskData", "adapt"]
