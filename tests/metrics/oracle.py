"""The definitions written out plainly with OpenCV and float64 numpy: slow, and what the fast code must equal."""

from __future__ import annotations

import cv2
import numpy as np


def contour_boxes(score, *, thresholds=1000, contours="largest"):
    """Boxes at each threshold: a list of int arrays [B, 4], B = 1 for the largest contour."""
    height, width = score.shape
    levels = (score * 255).astype(np.uint8)
    peak = levels.max()
    boxes = []
    for tau in np.arange(0, 1, 1 / thresholds):
        _, binary = cv2.threshold(levels, int(tau * peak), 255, cv2.THRESH_BINARY)
        found, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        if contours == "largest" and found:
            found = [max(found, key=cv2.contourArea)]
        boxes.append([cv2.boundingRect(contour) for contour in found] or [(0, 0, 0, 0)])
    edges = []
    for at_tau in boxes:
        box = np.array(at_tau)
        box[:, 2:] += box[:, :2]
        edges.append(np.minimum(box, (width, height, width - 1, height - 1)))
    if levels.max() == 0:
        edges = [np.zeros((1, 4), int) for _ in edges]
    return edges


def iou_curve(score, truth, *, thresholds=1000, contours="largest"):
    """Best inclusive IoU at each threshold (float64 [thresholds])."""
    boxes = contour_boxes(score, thresholds=thresholds, contours=contours)
    truth = np.asarray(truth, dtype=np.float64).reshape(-1, 4)
    if not len(truth):
        return np.zeros(thresholds)
    flat = np.concatenate(boxes).astype(np.float64)[:, None]
    sides = np.minimum(flat[..., 2:], truth[:, 2:]) - np.maximum(flat[..., :2], truth[:, :2]) + 1
    overlap = np.maximum(sides, 0).prod(axis=2)
    areas = (flat[..., 2:] - flat[..., :2] + 1).prod(axis=2) + (truth[:, 2:] - truth[:, :2] + 1).prod(axis=1) - overlap
    best = (overlap / areas).max(axis=1)
    starts = np.cumsum([0] + [len(box) for box in boxes[:-1]])
    return np.maximum.reduceat(best, starts)


def counts(maps, boxes, *, thresholds=1000, contours="largest", ious=(0.5,)):
    """Images correct at each threshold (int64 [len(ious), thresholds])."""
    total = np.zeros((len(ious), thresholds), np.int64)
    for score, truth in zip(maps, boxes, strict=True):
        curve = iou_curve(score, truth, thresholds=thresholds, contours=contours)
        total += curve >= np.reshape(ious, (-1, 1))
    return total
