"""Files of the Extensible Storage Engine (ESE, JET Blue), in which Exchange keeps its data: read and verified.

A library of its own: it needs numpy and perdure's error types, and nothing else of perdure. Nothing here writes to a
file that it reads.
"""
