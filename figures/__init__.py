"""Figures and tables of the paper, drawn from the tidy tables of results/PROFILE/ alone.

A file a figure or group of tables; which function draws what stands in register.csv. This module imports nothing, so
that ``python -m figures status`` is quick.
"""
