"""pgkeep beside its peers on one generated cluster: `python -m local benchmark`.

Same data, same server, same emulator, one machine; each contender starts with a fresh emulator.
docs/how-to/run-the-benchmark.md tells what is compared and how fair it is.
"""
