"""What differs between a classifier's classes and a data set's is said, for both lists."""

from __future__ import annotations

import pytest

from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.classifier import ClassifierRecord, refuse_misfit


def record(*names):
    known = {str(label): name for label, name in enumerate(names)}
    return ClassifierRecord(model="net", outputs=len(names), size=8, mean=(0,) * 3, std=(1,) * 3, class_names=known)


def test_every_label_that_is_named_otherwise_is_listed_up_to_five():
    ours = dict(enumerate("abcdefgh"))
    refuse_misfit(record(*"abcdefgh"), "birds", 8, ours)
    with pytest.raises(ConfigError, match="label 0 is 'x' to the classifier net and 'a' in data set birds; 2 is 'y'"):
        refuse_misfit(record(*"xbydefgh"), "birds", 8, ours)
    with pytest.raises(ConfigError, match=r"4 is 'u' and 'e'; and 3 more\n"):
        refuse_misfit(record(*"qrstuvwx"), "birds", None, ours)


def test_lists_of_different_length_say_which_names_only_one_has():
    with pytest.raises(
        ConfigError, match="3 outputs, and data set birds has 2 classes; only the classifier names ani, auk; .* emu\n"
    ):
        refuse_misfit(record("ani", "auk", "owl"), "birds", 2, {0: "emu", 1: "owl"})
