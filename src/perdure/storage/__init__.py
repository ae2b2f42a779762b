"""Where bytes lie: one contract, honest capabilities. Local directories now, object stores and tape later."""
