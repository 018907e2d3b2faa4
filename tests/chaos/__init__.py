"""A million events while everything that runs is killed: `make chaos`. See __main__.py.

The modules beside it also serve tests/faults, in small.
"""
