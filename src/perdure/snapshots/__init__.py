"""Ways to freeze a source: the writer protocol, and copies of files that share their blocks."""
