"""Feedback: two dialects of routes over one model."""
