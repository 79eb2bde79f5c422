"""Predictions for devices that are not here: a roofline of a graph's layers and a device's public figures. Nothing is run."""

from .devices import Device, device_named, known_devices
from .roofline import Prediction, predict

__all__ = ["Device", "Prediction", "device_named", "known_devices", "predict"]
