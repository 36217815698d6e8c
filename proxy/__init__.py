"""Kibitz: a transparent logging proxy for LLM calls, with feedback."""

__all__ = ["__version__"]

__version__ = "0.1.0"
