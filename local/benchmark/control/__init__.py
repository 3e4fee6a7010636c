"""The control part of the benchmark: what a fleet of ten thousand clusters costs the function app.

The real dispatcher on a real PostgreSQL, with nobody to do the jobs: what is measured is planning
and recording. Sending is a call of the queue service for each job, and limited by the settings.
"""
