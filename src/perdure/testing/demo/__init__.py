"""The main job, end to end, on a live database: protect it, lose it, bring back any moment, and check every row.

Run ``python -m perdure.testing.demo``. It drives perdure through its command line, as a person would, and checks
what it recovers against a ledger that perdure never sees.
"""
