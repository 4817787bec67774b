"""The load harness behind ``pronghorn load``.

Pure: histogram, plan, mix, tally, record, verdict, knee, compare, and the pages made of a record.
Shells: generator (a process that sends), session (who starts them), artifacts (files).
"""
