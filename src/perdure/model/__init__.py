"""The domain in frozen dataclasses: positions, extent maps, recovery points, timelines, states. No I/O."""
