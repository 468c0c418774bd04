"""The command line: what is typed, checked and started. Imports no torch before it must."""
