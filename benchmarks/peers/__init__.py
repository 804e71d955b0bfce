"""The same work by zwheel and by its peers, in turns: `python -m benchmarks.peers`; benchmarks/README.md says how to read it."""
