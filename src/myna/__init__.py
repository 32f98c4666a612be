"""Myna: a language model of your own, from first token to finished answer."""

__version__ = "0.1.0"
