from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from cryptography.x509.verification import PolicyBuilder, Store

from coordinator.control import parse_public_key
from superswarm.errors import Environment, Malformed, Misconfigured
from superswarm.io.certificates import ServerFiles, ensure_server_files, node_key


def names(files: ServerFiles) -> list[object]:
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    return [n.value for n in certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]


def test_a_client_that_pins_the_authority_accepts_the_server(tmp_path: Path) -> None:
    files = ensure_server_files(tmp_path, ["relay.example.org", "192.0.2.7", "::1"], prefix="relay")
    authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
    server = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    verifier = PolicyBuilder().store(Store([authority])).build_server_verifier(x509.DNSName("relay.example.org"))
    assert verifier.verify(server, [])[0] == server
    assert [str(name) for name in names(files)] == ["relay.example.org", "192.0.2.7", "::1"]


def test_private_keys_are_private(tmp_path: Path) -> None:
    files = ensure_server_files(tmp_path, ["localhost"], prefix="relay")
    node_key(tmp_path / "node.key")
    for key in (files.key, tmp_path / "relay-ca.key", tmp_path / "node.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_restart_keeps_what_members_pinned(tmp_path: Path) -> None:
    first = ensure_server_files(tmp_path, ["localhost"], prefix="relay")
    before = first.authority.read_bytes(), first.certificate.read_bytes()
    again = ensure_server_files(tmp_path, ["localhost"], prefix="relay")
    assert (again.authority.read_bytes(), again.certificate.read_bytes()) == before
    other = ensure_server_files(tmp_path, ["relay.example.org"], prefix="relay")
    assert other.authority.read_bytes() == before[0]
    assert names(other) == ["relay.example.org"]


def test_a_crash_between_key_and_certificate_heals(tmp_path: Path) -> None:
    files = ensure_server_files(tmp_path, ["localhost"], prefix="relay")
    stranger = ensure_server_files(tmp_path, ["localhost"], prefix="stranger")
    files.key.write_bytes(stranger.key.read_bytes())
    before = files.certificate.read_bytes()
    assert ensure_server_files(tmp_path, ["localhost"], prefix="relay").certificate.read_bytes() != before


@pytest.mark.parametrize("wrong", [[], ["not a name"], ["long" * 70]])
def test_names_that_cannot_be_are_misconfigured(tmp_path: Path, wrong: list[str]) -> None:
    with pytest.raises(Misconfigured):
        ensure_server_files(tmp_path, wrong, prefix="relay")


def test_a_node_key_is_made_once(tmp_path: Path) -> None:
    line = node_key(tmp_path / "node.key")
    assert node_key(tmp_path / "node.key") == line
    assert (tmp_path / "node.key.pub").read_text() == line + "\n"
    assert load_ssh_public_key(line.encode())
    assert parse_public_key(line + "\n").startswith(b"-----BEGIN PUBLIC KEY-----")


def test_a_file_that_is_no_key_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "node.key").write_text("hello")
    with pytest.raises(Misconfigured, match="OpenSSH"):
        node_key(tmp_path / "node.key")


@pytest.mark.parametrize(
    "line", ["", "ssh-rsa", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"]
)
def test_other_public_keys_are_malformed(line: str) -> None:
    with pytest.raises(Malformed):
        parse_public_key(line)


def test_a_folder_that_cannot_be_written_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(Environment):
        ensure_server_files(tmp_path / "missing", ["localhost"], prefix="relay")
    assert list(tmp_path.iterdir()) == []
