"""The key of one sealed asset, with what its keeper must know of it. Whoever holds it can read the asset."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Final, Self

from superswarm.assets.container import AssetHeader, Kind
from superswarm.consortium.documents import decode_base64, dump_json, load_json, require_fields
from superswarm.crypto.kdf import KEY_BYTES
from superswarm.errors import Malformed
from superswarm.values import LIMITS, Digest

FORMAT: Final = "superswarm-asset-key/1"
PURPOSE: Final = "an asset's key"
"""What a file that holds one under a passphrase is sealed for (superswarm.io.keystore)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetKey:
    """Made when an asset is sealed. Its owner's broker keeps it, and releases it on the manifest's terms."""

    header: AssetHeader  # as it stands in the sealed file
    digest: Digest  # of the sealed file: what the manifest names
    key: bytes = field(repr=False)  # 32 bytes

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise Malformed(f"an asset's key has {KEY_BYTES} bytes")

    @property
    def asset(self) -> str:
        """The asset's random id, 64 hex digits."""
        return self.header.asset

    @property
    def kind(self) -> Kind:
        return self.header.kind

    @property
    def demo(self) -> bool:
        """Whether simulated TEEs may have the key."""
        return self.header.demo

    def to_bytes(self) -> bytes:
        """In the clear: for a file that is sealed, and for nothing else."""
        return dump_json(
            {
                "format": FORMAT,
                "header": self.header.to_json().decode(),
                "digest": str(self.digest),
                "key": base64.b64encode(self.key).decode(),
            }
        )

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Invert `to_bytes`. Raises Malformed or TooLarge."""
        data = load_json(raw, PURPOSE, limit=LIMITS.mail_bytes)
        require_fields(data, PURPOSE, FORMAT, {"header", "digest", "key"})
        match data:
            case {"header": str(header), "digest": str(digest), "key": str(key)}:
                return cls(
                    header=AssetHeader.parse(header.encode()),
                    digest=Digest.parse(digest),
                    key=decode_base64(key, PURPOSE),
                )
            case _:
                raise Malformed("an asset's key does not have the expected fields")
