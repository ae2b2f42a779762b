"""An engine simulator that behaves like an Exchange Information Store on the ESE engine: real files, log and crashes.

It is not Exchange. What it does truthfully, and what it does not, is in ``docs/reference/information-store.md``.
"""
