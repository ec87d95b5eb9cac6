"""`make bench`: quintet and its rivals side by side, in turn, on one machine.

`python -m bench --scenario hello --quick` runs one scenario. What a figure means and how it is taken is written in
docs/benchmarks.md; a scenario is a file under bench/scenarios/, a rival a class in bench/rivals.py.
"""
