"""Pages to look at, each one HTML file that loads nothing: shell, charts, cards of rows and their script."""
