"""The commands, one module each. Heavy imports stay inside the functions, so that every command starts fast."""
