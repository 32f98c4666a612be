"""Documents read, stored, searched, answered from."""
