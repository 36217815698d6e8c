"""Calls that did not pass through the proxy, told afterwards in two dialects. Contract section 7."""
