"""What both ends of the broker's gRPC service agree on (`broker.proto`)."""

from __future__ import annotations

from typing import Final

from superswarm.values import LIMITS

SERVICE: Final = "superswarm.broker.v1.Broker"
MESSAGE_BYTES: Final = LIMITS.evidence_bytes + LIMITS.mail_bytes  # a request: evidence, a vouch, a grant
PEM_BYTES: Final = 64 * 1024
