"""What is measured on an outcome: each evaluation returns numbers, tables and figures.

An evaluation is called with the subject and the explanations by method, and returns an `Outcome`.
"""
