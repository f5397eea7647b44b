"""`accelsim reproduce`: each computational figure of the SWAT paper, computed, beside the paper's own."""
