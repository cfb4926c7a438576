"""How pairs are written: by sample, each at its known place in the same files, so that any number of processes may.

`arrays` are npy files written in parts, `work` is what is done for one sample, `cluster` runs it in threads, processes
or on a Dask scheduler, `verify` checks what was written. `seal.data.assemble` puts these together.
"""
