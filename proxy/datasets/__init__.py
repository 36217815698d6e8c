"""Sets of calls, copied out of the log and edited by hand."""
