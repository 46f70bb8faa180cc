"""One request in, one sample out; the transports that stamp."""
