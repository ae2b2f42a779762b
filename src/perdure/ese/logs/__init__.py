"""Transaction logs: segments, records, and what they say."""
