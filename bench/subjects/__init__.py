"""Pronghorn as the subject: what is called, and how, in each scenario."""
