"""The same job as a plain Flower app: FedAvg, arrays in the open, Flower's executors. For `flwr run`."""
