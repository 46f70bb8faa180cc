"""The simulated inference server: continuous batching whose true figures are known, over sockets and in process."""
