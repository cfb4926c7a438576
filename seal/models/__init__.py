"""Networks, which know no data set: encoders (a new one is an entry in `registry`), the two stages, baselines."""
