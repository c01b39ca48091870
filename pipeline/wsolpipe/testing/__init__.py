"""Test suites that every implementation of a kind passes; a package runs one with pytest by a subclass of its own."""

from wsolpipe.testing.backends import BackendReadTests, BackendTests
from wsolpipe.testing.figures import FigureTests
from wsolpipe.testing.formats import FormatTests
from wsolpipe.testing.layouts import LayoutTests

__all__ = ["BackendReadTests", "BackendTests", "FigureTests", "FormatTests", "LayoutTests"]
