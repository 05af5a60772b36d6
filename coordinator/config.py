"""What the operator configures: the relay, and the aggregator in a TEE."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from superswarm.io.config import Address, Config, ListenAt, LogFormat, RelayAt

Log = Annotated[LogFormat, Field(description="`human` for people, `json` for one JSON object a line.")]


class CoordinatorConfig(Config):
    """The relay: it carries ciphertext, and holds no key that opens any of it."""

    host: Annotated[
        str,
        Field(min_length=1, max_length=253, description='The address to listen on; "0.0.0.0" for every interface.'),
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535, description="The port that members' programs connect to.")] = 8443
    names: Annotated[
        tuple[str, ...],
        Field(
            min_length=1,
            description="The names and addresses under which members reach the relay, for its TLS certificate.",
        ),
    ] = ("localhost", "127.0.0.1")
    state: Annotated[
        Path,
        Field(description="A folder for the relay's database, certificates and the SuperExec secret."),
    ] = Path("relay")
    http: Annotated[
        ListenAt,
        Field(description='Where to serve /health and /metrics; "off" for nowhere. Nothing secret is served.'),
    ] = Address("127.0.0.1", 9180)
    log_format: Log = "human"


class AggregatorConfig(Config):
    """The aggregator: it holds the plaintext of updates, in memory only."""

    manifest: Annotated[
        Path,
        Field(
            description="The signed manifest with all its epochs, as `superswarm manifest combine` writes it.",
            examples=["manifest.json"],
        ),
    ]
    pinned: Annotated[
        str | None,
        Field(
            pattern=r"^sha256:[0-9a-f]{64}$",
            description="The digest of an epoch that the chain must contain.",
            examples=["sha256:" + "0" * 64],
        ),
    ] = None
    relay: Annotated[RelayAt, Field(description="The relay, as members reach it.", examples=["localhost:8443"])]
    relay_ca: Annotated[
        Path,
        Field(description="The certificate of the relay's authority (PEM).", examples=["relay/relay-ca.crt"]),
    ]
    superexec_secret: Annotated[
        Path,
        Field(
            description="The file with the secret by which the relay knows its executor. It opens nothing.",
            examples=["relay/superexec.secret"],
        ),
    ]
    platform_credentials: Annotated[
        Path | None,
        Field(
            description="Only under a simulated manifest: the credentials of the simulated TEE, which the\n"
            "operator's development authority issued. Simulated evidence protects nothing.",
            examples=["simulated-platform"],
        ),
    ] = None
    collateral: Annotated[
        Path | None,
        Field(
            description="Only under a real manifest: the folder that `superswarm collateral fetch` fills. What is\n"
            "in it is stapled to this machine's evidence, and read anew each time.",
            examples=["collateral"],
        ),
    ] = None
    join_seconds: Annotated[
        int,
        Field(ge=1, le=7 * 86_400, description="How long a run waits for members that are not there when it starts."),
    ] = 300
    state: Annotated[Path, Field(description="A folder for sealed files. No plaintext is written there.")] = Path(
        "aggregator-state"
    )
    http: Annotated[
        ListenAt,
        Field(description='Where to serve /health and /metrics; "off" for nowhere.', examples=["127.0.0.1:9183"]),
    ] = None
    log_format: Log = "human"
