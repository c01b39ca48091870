"""Figures of a stage, a folder of maps or a network, against ground truth or pseudo-labels; one code path for all."""
