"""Networks, which know no data set; a new encoder is an entry in `encoder_registry`."""
