"""From a data set's files to the listing of a split: one module a family of layouts."""
