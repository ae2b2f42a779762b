"""The verbs: protect, synchronize, express full, check, watch, recover, browse. Joins a workload to a vault."""
