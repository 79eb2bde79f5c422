"""From a quality budget to FP16 and INT8 graphs: calibration, sensitivity, search."""
