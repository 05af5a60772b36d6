"""The vault: an owner's asset keys on disk, each encrypted, and once more for every manifest it is offered under.

    vault.json   what opens it, and per asset: the key wrapped for the vault itself, and one wrapping per offer

A wrapped key opens only for the asset and header that it was added with, for its own manifest, and for its own offer:
a file in which somebody moved entries about, or marked an asset as a demo, does not open. What is offered, and what
was withdrawn, the log says (`decisions.py`); the vault holds keys. An offer takes both, so that neither an old vault
nor an entry that somebody adds to the log brings a withdrawn asset back.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field

from participants.broker.wrapping import KeyWrapper, by_key_file, by_passphrase
from superswarm.assets.container import AssetHeader
from superswarm.assets.key import AssetKey
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.clause import Clause, DigestText, Name
from superswarm.consortium.documents import decode_base64, dump_json, load_json
from superswarm.consortium.grant import LAST_SECOND
from superswarm.errors import CannotOpen, Misconfigured, ReleaseRefused
from superswarm.io.files import SECRET, locked, make_folder, read_bytes, write_bytes
from superswarm.values import Digest
from superswarm.wire import pack

FORMAT: Final = "superswarm-vault/1"
FILE: Final = "vault.json"
WHAT: Final = "vault"
VAULT_BYTES: Final = 16 * 1024**2  # some ten thousand wrapped keys
LABEL: Final = "superswarm/v1/vault"
KNOWN: Final = bytes(32)  # wrapped in every vault, to tell a wrong passphrase from an altered entry

Wrapped = Annotated[str, Field(max_length=2048)]  # base64


class Offer(Clause):
    """An asset's key, wrapped for one manifest."""

    manifest: DigestText
    consortium: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    epoch: Annotated[int, Field(ge=1, lt=2**31)]
    name: Name  # the asset's, in that manifest
    entry: Annotated[int, Field(ge=1, le=LAST_SECOND)]  # of the log, which has the offer
    key: Wrapped


class Held(Clause):
    """One asset, and its key in as many wrappings as there are offers, and one more."""

    asset: DigestText  # of the sealed file
    header: AssetHeader  # as it stands in the sealed file
    key: Wrapped
    offers: Annotated[tuple[Offer, ...], Field(strict=False, max_length=1024)] = ()

    def offer(self, manifest: Digest) -> Offer | None:
        return next((one for one in self.offers if one.manifest == str(manifest)), None)

    def context(self, manifest: Digest | None, entry: int = 0) -> bytes:
        """What the wrapping for the offer of this manifest in this entry, or for the vault itself, is bound to."""
        offer = (manifest.raw, entry) if manifest is not None else (b"",)
        return pack(LABEL, Digest.parse(self.asset).raw, self.header.to_json(), *offer)


class Document(Clause):
    """The vault's file. Proves nothing until its wrapper has opened it."""

    format: Literal["superswarm-vault/1"] = FORMAT
    opened_by: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]  # KeyWrapper.kind
    parameters: Annotated[str, Field(max_length=4096)]  # base64
    check: Wrapped
    assets: Annotated[tuple[Held, ...], Field(strict=False, max_length=4096)] = ()


@dataclass(frozen=True, slots=True)
class Vault:
    """A vault that was opened. What changes it gives a new one."""

    document: Document
    wrapper: KeyWrapper

    @classmethod
    def new(cls, wrapper: KeyWrapper) -> Self:
        document = Document(
            opened_by=wrapper.kind, parameters=_text(wrapper.parameters), check=_text(wrapper.wrap(KNOWN, _check()))
        )
        return cls(document, wrapper)

    @classmethod
    def open(cls, document: Document, wrapper: KeyWrapper) -> Self:
        """Raises Misconfigured for a wrong passphrase or key file."""
        try:
            wrapper.unwrap(_raw(document.check), _check())
        except CannotOpen:
            raise Misconfigured(f"this {wrapper.kind.replace('-', ' ')} does not open the vault") from None
        return cls(document, wrapper)

    def held(self, asset: Digest) -> Held | None:
        return next((one for one in self.document.assets if one.asset == str(asset)), None)

    def add(self, key: AssetKey) -> Vault:
        """With one more asset. Misconfigured where the vault has it already."""
        if self.held(key.digest) is not None:
            raise Misconfigured(f"the vault holds the key of {key.digest} already")
        blank = Held(asset=str(key.digest), header=key.header, key="")
        held = blank.model_copy(update={"key": _text(self.wrapper.wrap(key.key, blank.context(None)))})
        return self._with(*self.document.assets, held)

    def offer(self, asset: Digest, manifest: ApprovedManifest, name: str, entry: int) -> Vault:
        """With the key wrapped for this manifest too, in place of wrappings for earlier epochs of its consortium.

        `entry` is the number that the offer has in the log: the wrapping serves for that offer, and for none which
        somebody who cannot open the vault writes into the log later.
        """
        held, consortium = self.require(asset), manifest.manifest.consortium
        key = self.wrapper.unwrap(_raw(held.key), held.context(None))
        made = Offer(
            manifest=str(manifest.digest),
            consortium=consortium,
            epoch=manifest.manifest.epoch,
            name=name,
            entry=entry,
            key=_text(self.wrapper.wrap(key, held.context(manifest.digest, entry))),
        )
        return self._replace(held, (*(one for one in held.offers if one.consortium != consortium), made))

    def withdraw(self, asset: Digest, manifest: Digest | None) -> Vault:
        """Without the wrapping for this manifest, or for any."""
        held = self.require(asset)
        kept = () if manifest is None else (one for one in held.offers if one.manifest != str(manifest))
        return self._replace(held, tuple(kept))

    def key(self, asset: Digest, manifest: Digest) -> bytes:
        """The key, from the wrapping for this manifest. Raises ReleaseRefused where there is none."""
        held = self.require(asset)
        offer = held.offer(manifest)
        if offer is None:
            raise ReleaseRefused("not-offered", "the owner does not offer this asset under this manifest")
        return self.wrapper.unwrap(_raw(offer.key), held.context(manifest, offer.entry))

    def rewrapped(self, wrapper: KeyWrapper) -> Vault:
        """The same keys under another passphrase or key file. Raises CannotOpen where an entry was altered."""
        fresh = Vault.new(wrapper)
        return fresh._with(*(self._rewrap(held, wrapper) for held in self.document.assets))

    def _rewrap(self, held: Held, wrapper: KeyWrapper) -> Held:
        def again(wrapped: str, context: bytes) -> str:
            return _text(wrapper.wrap(self.wrapper.unwrap(_raw(wrapped), context), context))

        offers = tuple(
            one.model_copy(update={"key": again(one.key, held.context(Digest.parse(one.manifest), one.entry))})
            for one in held.offers
        )
        return held.model_copy(update={"key": again(held.key, held.context(None)), "offers": offers})

    def require(self, asset: Digest) -> Held:
        """What is held of this asset. Misconfigured where nothing is."""
        held = self.held(asset)
        if held is None:
            raise Misconfigured(f"the vault has no key of {asset}: add it first (superswarm broker add)")
        return held

    def _replace(self, held: Held, offers: tuple[Offer, ...]) -> Vault:
        changed = held.model_copy(update={"offers": offers})
        return self._with(*(changed if one.asset == held.asset else one for one in self.document.assets))

    def _with(self, *assets: Held) -> Vault:
        return replace(self, document=self.document.model_copy(update={"assets": assets}))


class VaultFolder:
    """Where a vault and its log lie. One process at a time decides or changes anything."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / FILE

    @contextmanager
    def locked(self) -> Iterator[None]:
        with locked(self.file):
            yield

    @property
    def exists(self) -> bool:
        return self.file.exists()

    def create(self, wrapper: KeyWrapper) -> Vault:
        """Begin an empty vault. Misconfigured where there is one."""
        make_folder(self.folder)
        vault = Vault.new(wrapper)
        write_bytes(self.file, to_bytes(vault.document), mode=SECRET)
        return vault

    def require(self) -> None:
        """Raise Misconfigured where there is none."""
        if not self.exists:
            raise Misconfigured(
                f"no vault is in {self.folder}: name its folder (--vault), or begin one with `superswarm broker add`"
            )

    def document(self) -> Document:
        """Read the file. Proves nothing."""
        self.require()
        return parse(read_bytes(self.file, limit=VAULT_BYTES))

    def open(self, wrapper: KeyWrapper) -> Vault:
        """Raises Misconfigured for a wrong passphrase or key file."""
        return Vault.open(self.document(), wrapper)

    def save(self, vault: Vault) -> None:
        """Write the vault whole, durably, in place of the one before."""
        write_bytes(self.file, to_bytes(vault.document), mode=SECRET, replace=True)


def wrapper_for(document: Document, passphrase: str | None, key_file: Path | None) -> KeyWrapper:
    """What opens this vault. Misconfigured where it was given by neither or the wrong one of the two."""
    match document.opened_by:
        case "passphrase" if key_file is None and passphrase is not None:
            return by_passphrase(passphrase, _raw(document.parameters))
        case "key-file" if key_file is not None:
            return by_key_file(key_file)
        case "key-file":
            raise Misconfigured("the vault opens with a key file: give it (vault_key_file, --vault-key-file)")
        case "passphrase":
            raise Misconfigured("the vault opens with a passphrase, not with a key file")
        case other:
            raise Misconfigured(f"the vault opens with {other}, which this program does not know")


def parse(raw: bytes) -> Document:
    """Read a vault's file. Raises Malformed or TooLarge. Proves nothing."""
    return Document.from_data(load_json(raw, WHAT, limit=VAULT_BYTES))


def to_bytes(document: Document) -> bytes:
    data: dict[str, Any] = document.model_dump(mode="json")
    return dump_json(data)


def _check() -> bytes:
    return pack(LABEL, "check")


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _raw(text: str) -> bytes:
    return decode_base64(text, WHAT)
