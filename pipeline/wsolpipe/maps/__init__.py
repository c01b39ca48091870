"""Score maps as arrays: thresholds, regions, levels, stretching. Pure functions, no cv2, usable by both halves."""
