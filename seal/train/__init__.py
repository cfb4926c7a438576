"""The two stages: `tokens` brings patches to the device, `loop` trains, `runs` keeps what was trained."""
