"""The same job as a plain Flower app: FedAvg, plaintext arrays, Flower's own executors. `flwr run` takes this folder."""
