"""Workloads: the kinds of data sources, each a package that knows its engine and nothing of pools."""
