"""Two stages: `batches` brings patches to the GPU, `tokens` keeps theirs, `loop` trains, `runs` keeps the trained."""
