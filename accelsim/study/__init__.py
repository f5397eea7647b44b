"""What the records say: tidy tables, summaries, the paper's figures beside ours, files."""
