"""Evaluations: each returns metrics, tables and figures.

An evaluation is called with the subject and the output of each method, and returns an `Outcome`.
Its name is the first word of its metrics, tables and figures.
"""
