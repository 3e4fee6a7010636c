"""A Functions host for one machine: drives `function_app.py` as Azure would, with less around it.

It plays timers, HTTP routes, blob events (Event Grid) and queues, and refuses at start whatever it
cannot play. The same app runs under `func start` and in Azure; nothing in it knows this host.
"""
