"""The Exchange workload: mailbox databases with their log streams, alone or in an availability group."""

from perdure.workloads.exchange.workload import ExchangeWorkload

__all__ = ["ExchangeWorkload"]
