"""A public test kit: live workloads with a ledger of their own, conformance suites, fault and crash harnesses."""
