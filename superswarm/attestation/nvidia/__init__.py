"""Evidence of NVIDIA GPUs (Hopper, Blackwell) and NVSwitches: SPDM reports, certificate chains, reference manifests.

`spdm`, `certificates` and `rim` parse; `verify` and `rim` check signatures against pinned roots; `judge` compares
with reference values and a policy; `binding` ties the devices to the CPU's evidence. docs/attestation-nvidia.md
lists every check in order.
"""
