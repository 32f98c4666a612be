"""One file per method, found by its name; see train/method.py for what a file holds."""
