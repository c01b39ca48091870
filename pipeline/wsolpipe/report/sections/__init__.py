"""The parts of a report, one module each; `wsolpipe.report.page.Section` says what a module defines."""
