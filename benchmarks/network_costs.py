"""Record parameters and MACs of every network, which ``python -m distill list students`` shows.

Counted, not measured: the figures are the same on every machine.

    python -m benchmarks.network_costs
"""

from distill.cli._network_costs import RECORD, record

if __name__ == "__main__":
    record()
    print(f"{RECORD} is written")
