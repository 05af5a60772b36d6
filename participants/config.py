"""What a member configures: the node on its own premises, and the trainer in a TEE."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from superswarm.io.config import Address, BrokerAt, Config, ListenAt, LogFormat, NamedPlaces, PathLike, RelayAt
from superswarm.values import MEMBER_ID

MemberName = Annotated[
    str,
    Field(
        pattern=rf"^{MEMBER_ID.pattern}$",
        description="This member's id, as the manifest writes it.",
        examples=["north"],
    ),
]
ManifestFile = Annotated[
    Path,
    Field(
        description="The signed manifest with all its epochs, as `superswarm manifest combine` writes it.",
        examples=["manifest.json"],
    ),
]
PinnedDigest = Annotated[
    str | None,
    Field(
        pattern=r"^sha256:[0-9a-f]{64}$",
        description="The digest of an epoch that this machine's owner trusts. The chain must contain it.",
        examples=["sha256:" + "0" * 64],
    ),
]
RelayAddress = Annotated[
    RelayAt, Field(description="The relay, as the operator announces it.", examples=["localhost:8443"])
]
RelayAuthority = Annotated[
    Path,
    Field(
        description="The certificate of the relay's authority (PEM), from the operator.\n"
        "Guards availability, not secrecy: what the relay carries is sealed end to end.",
        examples=["relay-ca.crt"],
    ),
]
SupernodeKey = Annotated[
    Path,
    Field(
        description="The private key by which the relay knows this SuperNode (EC, OpenSSH format).\n"
        "Its public half goes to the operator. It opens nothing.",
        examples=["supernode.key"],
    ),
]
VaultFolderPath = Annotated[
    Path,
    Field(
        description="The folder with the keys of this member's sealed assets, encrypted, and the log of their\n"
        "release (`superswarm broker`). A member without one owns no sealed asset."
    ),
]
VaultKeyFile = Annotated[
    Path | None,
    Field(
        description="The key file that opens the vault, where it opens with one and not with a passphrase.",
        examples=["vault.key"],
    ),
]
Log = Annotated[LogFormat, Field(description="`human` for people, `json` for one JSON object a line.")]


class ParticipantConfig(Config):
    """The node: it holds the member's keys and speaks for the member."""

    member: MemberName
    manifest: ManifestFile
    pinned: PinnedDigest = None
    keys: Annotated[
        Path, Field(description="The member's private keys, made by `superswarm keys`.", examples=["north.keys"])
    ]
    passphrase_file: Annotated[
        Path | None,
        Field(
            description="A file with the passphrase of `keys`. Without it, the passphrase is asked for.",
            examples=["passphrase"],
        ),
    ] = None
    relay: RelayAddress
    relay_ca: RelayAuthority
    supernode_key: SupernodeKey
    state: Annotated[
        Path,
        Field(
            description="A folder for what the node must never forget: epochs seen, aggregators vouched for.\n"
            "Keep it on a disk that survives a restart. Losing it allows a second aggregator in one run."
        ),
    ] = Path("state")
    results: Annotated[Path, Field(description="A folder for sealed results.")] = Path("results")
    broker: Annotated[
        BrokerAt,
        Field(
            description='Who releases the keys of this member\'s sealed assets: "embedded" for this program, or the\n'
            "address of a broker that runs on its own (`superswarm broker up`).",
            examples=["embedded"],
        ),
    ] = None
    vault: VaultFolderPath = Path("vault")
    vault_key_file: VaultKeyFile = None
    vault_passphrase_file: Annotated[
        Path | None,
        Field(
            description="A file with the passphrase of the vault. Without it, the passphrase of `keys` is tried.",
            examples=["vault-passphrase"],
        ),
    ] = None
    broker_ca: Annotated[
        Path | None,
        Field(
            description="Only with a broker that runs on its own: the certificate of its authority, and this node's\n"
            "own, which `superswarm broker certificates` makes.",
            examples=["broker-ca.crt"],
        ),
    ] = None
    broker_certificate: Annotated[
        Path | None, Field(description="This node's certificate for the broker.", examples=["broker-node.crt"])
    ] = None
    broker_certificate_key: Annotated[
        Path | None, Field(description="The private key of that certificate.", examples=["broker-node.key"])
    ] = None
    http: Annotated[
        ListenAt,
        Field(description='Where to serve /health and /metrics; "off" for nowhere. Nothing secret is served.'),
    ] = Address("127.0.0.1", 9181)
    log_format: Log = "human"


class BrokerConfig(Config):
    """A broker that runs on its own, on the owner's premises, for the owner's nodes."""

    listen: Annotated[
        RelayAt, Field(description="Where the owner's nodes reach it.", examples=["127.0.0.1:9443"])
    ] = Address("127.0.0.1", 9443)
    consortia: Annotated[
        Path,
        Field(
            description="A folder with the approved file of each consortium that the owner is in (NAME.json), as\n"
            "`superswarm manifest combine` writes it; each in its newest epoch.",
            examples=["consortia"],
        ),
    ]
    vault: VaultFolderPath = Path("vault")
    vault_key_file: VaultKeyFile = None
    vault_passphrase_file: Annotated[
        Path | None,
        Field(
            description="A file with the passphrase of the vault. Without it, the passphrase is asked for.",
            examples=["vault-passphrase"],
        ),
    ] = None
    state: Annotated[
        Path,
        Field(
            description="A folder for what tells an old log from the newest one. Keep it on another disk than the\n"
            "vault: without it a broker counts every release as used up."
        ),
    ] = Path("state")
    certificate: Annotated[
        Path, Field(description="The broker's certificate (`superswarm broker certificates`).")
    ] = Path("broker.crt")
    certificate_key: Annotated[Path, Field(description="The private key of that certificate.")] = Path("broker.key")
    clients_ca: Annotated[
        Path, Field(description="The authority whose certificates nodes show. Others get no connection.")
    ] = Path("broker-ca.crt")
    http: Annotated[
        ListenAt,
        Field(description='Where to serve /health and /metrics; "off" for nowhere. Nothing secret is served.'),
    ] = Address("127.0.0.1", 9184)
    log_format: Log = "human"


class TrainerConfig(Config):
    """The trainer: it holds the plaintext of the member's data, the model and the updates, in memory only."""

    member: MemberName
    manifest: ManifestFile
    pinned: PinnedDigest = None
    relay: RelayAddress
    relay_ca: RelayAuthority
    supernode_key: SupernodeKey
    pairing: Annotated[
        Path,
        Field(
            description="The pairing key, which only this member's node and trainer have: by it the node knows its\n"
            "own trainer among all that run the same code. It opens nothing.",
            examples=["north.pairing"],
        ),
    ]
    asset: Annotated[
        tuple[str, ...],
        NamedPlaces(),
        Field(
            description="Where the manifest's assets lie, as NAME=PLACE: a file, an http(s) address, or any other\n"
            "address that fsspec knows. What is sealed is decrypted in memory only.",
            examples=[["base=https://assets.example.org/base.sealed", "records=/srv/records.sealed"]],
        ),
    ] = ()
    model: Annotated[
        str | None,
        PathLike(),
        Field(
            description="A base model that is not sealed: a folder (written with / or ./ at its beginning) or a\n"
            "Hugging Face id. It loads only if its digest is the manifest's.",
            examples=["./model"],
        ),
    ] = None
    train: Annotated[
        Path | None,
        Field(
            description="Training examples, where no sealed data is named: JSON lines, or Parquet (.parquet),\n"
            "with prompt and completion.",
            examples=["data/train.jsonl"],
        ),
    ] = None
    test: Annotated[
        Path | None,
        Field(description="Held-out examples, in the same form, for evaluation.", examples=["data/test.jsonl"]),
    ] = None
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        Field(description="Where to train. Under a real manifest a GPU must be attested, or it is refused."),
    ] = "auto"
    threads: Annotated[int, Field(ge=0, le=1024, description="Threads for training on a CPU; 0 for all cores.")] = 0
    platform_credentials: Annotated[
        Path | None,
        Field(
            description="Only under a simulated manifest: the credentials of the simulated TEE, which the member's\n"
            "development authority issued. Simulated evidence protects nothing.",
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
    state: Annotated[
        Path, Field(description="A folder for the SuperNode's files. No plaintext is written there.")
    ] = Path("trainer-state")
    http: Annotated[
        ListenAt,
        Field(description='Where to serve /health and /metrics; "off" for nowhere.', examples=["127.0.0.1:9182"]),
    ] = None
    log_format: Log = "human"
