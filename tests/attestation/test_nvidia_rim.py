"""Reference manifests: XML that attacks the parser, signatures that are moved, wrapped, weakened or borrowed."""

from __future__ import annotations

import datetime as dt
import re
import time

import pytest
from cryptography import x509
from lxml import etree
from mint_nvidia import AT, DRIVER, NOON, VBIOS, Vendor, issue, unsigned_manifest
from nvidia_fixtures import manifests, refused, vendor

from superswarm.attestation.nvidia.rim import Component, VerifiedManifest, find_signature, verify_rim
from superswarm.attestation.nvidia.xml import XML_BYTES, parse_xml
from superswarm.errors import Error, EvidenceRejected, Malformed, TooLarge

EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
DS = "http://www.w3.org/2000/09/xmldsig#"
SIGNATURE = re.compile(rb"<ds:Signature .*</ds:Signature>", re.DOTALL)


def good() -> bytes:
    return manifests()[0]


def verify(document: bytes, *, at: int = AT, staples: tuple[bytes, ...] = ()) -> VerifiedManifest:
    return verify_rim(document, at=at, staples=staples, roots=vendor().roots)


def signature_of(document: bytes) -> bytes:
    found = SIGNATURE.search(document)
    assert found
    return found.group()


def test_a_signed_manifest_verifies() -> None:
    driver, vbios = (verify(document).manifest for document in manifests())
    assert (driver.component, driver.version) == (Component.DRIVER, DRIVER)
    assert (vbios.component, vbios.version) == (Component.VBIOS, VBIOS)
    assert sorted(vbios.measurements) == list(range(1, 14))  # SPDM counts from 1


# --- XML -----------------------------------------------------------------------------------------------------------

MANY = " ".join(f"a{i}=''" for i in range(20_000))
NAMESPACES = " ".join(f"xmlns:a{i}='b'" for i in range(10_000))
LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9)
)
BOMBS = {
    "billion laughs": f"{LAUGHS}]><a>&j;</a>",
    "laughs in an attribute": f'{LAUGHS}]><a b="&j;"/>',
    "external entity": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
    "external DTD": '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd"><a/>',
    "parameter entity": '<!DOCTYPE a [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x"> %p;]><a/>',
    "entity without a DTD": "<a>&x;</a>",
    "stylesheet": '<?xml-stylesheet href="http://127.0.0.1:9/x.xsl"?><a/>',
    "CDATA": "<a><![CDATA[x]]></a>",
    "NUL": "<a>\0</a>",
    "other encoding": '<?xml version="1.0" encoding="UTF-7"?><a>+ADw-b/+AD4-</a>',
    "a declaration that goes on": "<?xml " + 'encoding="a" ' * 15_000,
    "byte order mark": "\ufeff<a/>",
    "deep": "<a>" * 17 + "</a>" * 17,
    "deeper than the library allows": "<a>" * 10_000 + "</a>" * 10_000,
    "many elements": f"<a>{'<b/>' * 4096}</a>",
    "very many elements": f"<a>{'<b/>' * 60_000}</a>",
    "many attributes": f"<a {MANY}/>",
    "many attributes behind a >": f"<a x='>' {MANY}/>",
    "a few attributes too many": f"<a {' '.join(MANY.split()[:65])}/>",
    "many namespaces": f"<a {NAMESPACES}/>",
    "many processing instructions": f"<a>{'<?x y?>' * 30_000}</a>",
    "huge": f"<a>{'x' * XML_BYTES}</a>",
    "unbalanced": "<a><b></a>",
    "nothing": "",
}


@pytest.mark.parametrize("name", BOMBS)
def test_xml_that_attacks_its_reader_is_refused_at_once(name: str) -> None:
    begun = time.perf_counter()
    with pytest.raises(Malformed):
        parse_xml(BOMBS[name].encode())
    assert time.perf_counter() - begun < 1


def test_utf_16_cannot_hide_a_document_type() -> None:
    with pytest.raises(Malformed):
        parse_xml('<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a><a/>'.encode("utf-16"))


def test_a_document_type_in_front_of_a_signed_manifest_is_refused() -> None:
    for doctype in (b"<!DOCTYPE SoftwareIdentity>", b'<!DOCTYPE x [<!ATTLIST Resource active CDATA "False">]>'):
        with pytest.raises(Malformed):
            verify(doctype + good())


def test_what_canonical_xml_drops_changes_nothing() -> None:
    """Comments and space outside and in tags are no content; what is signed stays the same."""
    known = verify(good()).manifest
    for document in (
        b'<?xml version="1.0" encoding="utf-8"?>\n' + good() + b"\n<!-- a comment -->\n",
        good().replace(b"<ns0:Payload", b"<!-- active='False' --><ns0:Payload", 1),
        good().replace(b"<ns0:Meta ", b"<ns0:Meta   ", 1),
    ):
        assert verify(document).manifest == known


# --- signatures ----------------------------------------------------------------------------------------------------


def test_altered_measurements_are_refused() -> None:
    for old, new in ((b'index="20" active="True"', b'index="20" active="False"'), (DRIVER.encode(), b"999.99.99")):
        assert old in good()
        assert refused(lambda o=old, n=new: verify(good().replace(o, n, 1))) == ("signature-invalid",)


def test_an_added_or_removed_element_is_refused() -> None:
    for document in (
        good().replace(b"</ns0:Payload>", b"</ns0:Payload><ns0:Meta/>", 1),
        re.sub(rb"<ns0:Resource [^>]*/>", b"", good(), count=1),
    ):
        assert refused(lambda d=document: verify(d)) == ("signature-invalid",)


def test_wrapped_signatures_are_refused() -> None:
    """XML signature wrapping: a genuine signature in a document whose root, or whose first manifest, is another."""
    evil = unsigned_manifest("999.99.99", [1])
    signature, body = signature_of(good()), SIGNATURE.sub(b"", good())
    inside = evil.replace(b"</SoftwareIdentity>", b"%s</SoftwareIdentity>")
    wrappings = [
        inside % good(),  # the whole signed document inside another
        inside % signature,  # its signature alone
        inside % (body + signature),
        b"<x>" + good() + evil + b"</x>",
        b"<x>" + evil + good() + b"</x>",
        good().replace(b"</ds:KeyInfo>", b"</ds:KeyInfo><ds:Object>" + evil + b"</ds:Object>", 1),
        good().replace(b"</ds:KeyInfo>", evil + b"</ds:KeyInfo>", 1),
        good().replace(signature, signature * 2, 1),
        good().replace(b"<ns0:Payload", signature + b"<ns0:Payload", 1),
        inside % (signature.replace(b"</ds:Signature>", good() + b"</ds:Signature>")),
        good().replace(b"<ns0:Payload>", b"<ns0:Payload>" + signature, 1).replace(signature + b"</S", b"</S"),
    ]
    for document in wrappings:
        with pytest.raises((Malformed, EvidenceRejected)):
            verify(document)


def test_a_second_or_misplaced_signature_is_refused_before_any_is_verified() -> None:
    signature = signature_of(good())
    nested = good().replace(signature, b"<ns0:Meta>" + signature + b"</ns0:Meta>", 1)
    for document in (good().replace(signature, signature * 2, 1), nested, SIGNATURE.sub(b"", good())):
        with pytest.raises(Malformed, match="exactly one signature"):
            find_signature(parse_xml(document))


def resigned(change: str, by: str) -> bytes:
    """A manifest whose signature was made over a changed SignedInfo: what a careless signer might sign."""
    root = etree.fromstring(good())
    text = etree.tostring(root).decode()
    assert change in text
    return text.replace(change, by).encode()


@pytest.mark.parametrize(
    ("change", "by"),
    [
        ('URI=""', 'URI="#payload"'),
        ('URI=""', 'URI="http://127.0.0.1:9/rim"'),
        ('URI=""', ""),
        (f'Algorithm="{DS}enveloped-signature"', 'Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"'),
        (f'<ds:Transform Algorithm="{DS}enveloped-signature"/>', ""),
        ("xml-c14n11", "xml-c14n11#WithComments"),
        ('Method Algorithm="http://www.w3.org/2006/12/xml-c14n11"', f'Method Algorithm="{EXCLUSIVE}"'),
        ('Transform Algorithm="http://www.w3.org/2006/12/xml-c14n11"', f'Transform Algorithm="{EXCLUSIVE}"'),
        ("xmldsig-more#ecdsa-sha384", "xmldsig-more#hmac-sha384"),
        ("xmldsig-more#ecdsa-sha384", "xmldsig-more#rsa-sha384"),
        ("xmldsig-more#sha384", "xmldsig#sha1"),
        ("<ds:X509Data>", "<ds:X509Data><ds:X509SubjectName>x</ds:X509SubjectName>"),
        ("<ds:KeyInfo>", "<ds:KeyInfo><ds:KeyName>x</ds:KeyName>"),
        ("<ds:KeyInfo>", '<ds:KeyInfo><ds:RetrievalMethod URI="http://127.0.0.1:9/"/>'),
    ],
)
def test_only_one_profile_of_xml_signatures_is_read(change: str, by: str) -> None:
    with pytest.raises((Malformed, EvidenceRejected)) as caught:
        verify(resigned(change, by))
    assert "signature does not hold" not in str(caught.value)  # refused for its form, before any key is used


def test_two_references_are_refused() -> None:
    text = good().decode()
    found = re.search(r"<ds:Reference.*</ds:Reference>", text, re.DOTALL)
    assert found
    with pytest.raises(Malformed):
        verify(text.replace(found.group(), found.group() * 2).encode())


@pytest.mark.parametrize("digest", ["sha256", "sha512"])
def test_other_digests_are_refused(digest: str) -> None:
    document = vendor().manifest(DRIVER, range(3), digest=digest)
    assert refused(lambda: verify(document)) == ("signature-algorithm",)


def test_loose_base64_is_refused() -> None:
    """Two texts for one signature would be two documents for one statement."""
    value = re.search(rb"<ds:SignatureValue>(.*?)</", good(), re.DOTALL)
    assert value
    text = value.group(1)
    for other in (text + b"=", b"*" + text, text[:-4], b"", b"AAAA", text + text, text[:40] + b"<!---->" + text[40:]):
        with pytest.raises(Malformed):
            verify(good().replace(text, other))


def test_a_comment_inside_the_digest_is_refused() -> None:
    """Canonical XML drops comments, a reader of the first text node stops at them."""
    value = re.search(rb"<ds:DigestValue>(.*?)</", good())
    assert value
    for other in (b"<!-- -->" + value.group(1), value.group(1)[:8] + b"<!-- -->" + value.group(1)[8:], b""):
        with pytest.raises(Malformed):
            verify(good().replace(value.group(1), other))


# --- signers -------------------------------------------------------------------------------------------------------


def signed_by(signer_ca: object = None, **changes: object) -> bytes:
    signer = issue("signer", signer_ca or vendor().reference_ca, **{"ca": False, **changes})  # type: ignore[arg-type]
    return vendor().manifest(DRIVER, range(3), signer=signer)


def test_another_vendors_manifest_is_refused() -> None:
    stranger = Vendor()
    assert refused(lambda: verify(stranger.manifest(DRIVER, range(3)))) == ("root-untrusted",)


def test_a_devices_root_signs_no_manifest() -> None:
    assert refused(lambda: verify(signed_by(vendor().device_ca))) == ("root-untrusted",)


def test_a_self_signed_signer_under_the_pinned_root_certificate_is_refused() -> None:
    """The pinned root stands at the end of the chain, but did not issue anything in it."""
    impostor = issue("Test Reference L3", issue("Test Reference Root CA", None))
    signer = issue("signer", impostor, ca=False)
    chain = (*signer.chain[:2], vendor().reference_root.certificate)
    document = vendor().manifest(DRIVER, range(3), signer=type(signer)(signer.key, chain))
    assert refused(lambda: verify(document)) == ("chain-invalid",)


def test_an_expired_or_future_signer_is_refused() -> None:
    day = dt.timedelta(days=1)
    assert refused(lambda: verify(signed_by(not_after=NOON - day))) == ("certificate-expired",)
    assert refused(lambda: verify(signed_by(not_before=NOON + day))) == ("certificate-not-yet-valid",)
    document = signed_by(not_after=NOON + day)
    assert verify(document).not_after == AT + 86_400
    assert refused(lambda: verify(document, at=AT + 86_401)) == ("certificate-expired",)


def test_a_signer_that_is_an_authority_is_refused() -> None:
    assert refused(lambda: verify(signed_by(vendor().reference_root, ca=True, digital_signature=True))) == (
        "chain-invalid",
    )


def test_an_authority_below_one_that_allows_none_is_refused() -> None:
    between = issue("one too many", vendor().reference_ca)
    assert refused(lambda: verify(signed_by(between))) == ("chain-invalid",)


def test_a_revoked_signer_is_refused() -> None:
    crl = vendor().crl(vendor().reference_ca, (vendor().signer.certificate,))
    assert refused(lambda: verify(good(), staples=(crl,))) == ("certificate-revoked",)
    other = vendor().crl(vendor().reference_ca, (issue("x", vendor().reference_ca).certificate,))
    assert verify(good(), staples=(other,)).revocation.good == 1


def test_a_certificate_that_is_no_certificate_does_not_parse() -> None:
    found = re.search(rb"<ds:X509Certificate>(.*?)</", good(), re.DOTALL)
    assert found
    for other in (b"", b"AAAA", found.group(1)[:-8], b"<ds:X509Certificate/>", found.group(1) + b"<!-- -->"):
        with pytest.raises(Malformed):
            verify(good().replace(found.group(1), other))
    with pytest.raises(Malformed):
        verify(re.sub(rb"<ds:X509Certificate>.*</ds:X509Certificate>", b"", good(), flags=re.DOTALL))


# --- content: signed, and still not a manifest ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "by"),
    [
        ("SoftwareIdentity", "Something"),
        ('supplemental="false"', 'supplemental="true"'),
        ("<ns0:Meta ", "<ns0:Meta/><ns0:Meta "),
        ('edition="GPU"', 'edition="TOASTER"'),
        (' product="GH100"', ""),
        ('colloquialVersion="1.2"', f'colloquialVersion="{"9" * 33}"'),
        ('tagId="test"', f'tagId="{"x" * 201}"'),
        ('index="1"', 'index="0"'),
        ('index="1"', 'index="255"'),
        ('index="1"', 'index="-1"'),
        ('index="1"', 'index="\u0661"'),
        ('active="True"', 'active="true"'),
        ('active="True"', 'active="False"'),
        ('alternatives="1"', 'alternatives="2"'),
        ('alternatives="1"', 'alternatives="0"'),
        ("ns2:Hash0=", 'ns2:Hash1="00" ns2:Hash0='),
        ("ns2:Hash0=", "Hash0="),
        ('size="48"', 'size="32"'),
        ('type="Measurement"', 'type="Firmware"'),
        ("<ns0:Payload>", "<ns0:Payload><ns0:Directory/>"),
        ("<ns0:Payload>", "<ns0:Payload><?x y?>"),
    ],
)
def test_signed_nonsense_is_refused(change: str, by: str) -> None:
    text = unsigned_manifest("1.2", [1]).decode()
    assert change in text
    document = vendor().sign(etree.fromstring(text.replace(change, by).encode()))
    with pytest.raises(Malformed):
        verify(document)


def test_random_certificates_in_the_key_info_do_not_reach_signxml() -> None:
    """signxml is given the verified chain's leaf, whatever else the document offers."""
    stranger = issue("stranger", None)
    assert isinstance(stranger.certificate, x509.Certificate)
    document = vendor().manifest(DRIVER, range(3), signer=type(stranger)(stranger.key, vendor().signer.chain))
    assert refused(lambda: verify(document)) == ("signature-invalid",)


def test_errors_are_ours_and_carry_no_document() -> None:
    with pytest.raises(Error) as caught:
        verify(good().replace(DRIVER.encode(), b"secret-version", 1))
    assert "secret-version" not in str(caught.value)


def test_too_large_documents_are_not_parsed() -> None:
    with pytest.raises(TooLarge):
        verify(good() + b" " * XML_BYTES)
