"""XML from strangers: UTF-8, no DTD, no entities, no network, bounded in bytes, depth, elements and attributes.

The checks that libxml2 would make too late come first, on the text: a document type (where entities, external files
and amplification live), CDATA, another encoding (which could hide them), and how many attributes one tag has.
"""

from __future__ import annotations

import re

from lxml import etree

from superswarm.errors import Malformed, TooLarge

XML_BYTES = 256 * 1024  # NVIDIA's reference manifests have 20 to 26 KiB
ELEMENTS = 4096
DEPTH = 16
ATTRIBUTES = 64  # of one element, namespace declarations included

DECLARATION = re.compile(
    r"<\?xml\s+version=[\"']1\.0[\"'](?:\s+encoding=[\"']utf-8[\"'])?(?:\s+standalone=[\"'](?:yes|no)[\"'])?\s*\?>",
    re.IGNORECASE,
)
FORBIDDEN = re.compile(r"<!(?!--)|<\?xml-stylesheet|\0")


def parse_xml(data: bytes) -> etree._Element:
    """Parse a document under the limits above. Malformed for anything else, TooLarge over a limit."""
    if len(data) > XML_BYTES:
        raise TooLarge(f"an XML document has at most {XML_BYTES} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("an XML document is not UTF-8") from None
    if text.startswith("\ufeff") or (text.startswith("<?xml") and not DECLARATION.match(text)):
        raise Malformed("an XML document is not declared as XML 1.0 in UTF-8, or begins with a byte order mark")
    if FORBIDDEN.search(text):
        raise Malformed("an XML document has a document type, CDATA, a stylesheet or a NUL")
    pieces = text.split("<")  # each has at most one tag
    if len(pieces) > 3 * ELEMENTS or any(piece.count("=") > ATTRIBUTES for piece in pieces):
        raise TooLarge(f"an XML document has over {ELEMENTS} elements, or one with over {ATTRIBUTES} attributes")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError):
        raise Malformed("not well-formed XML") from None
    _check_shape(root)
    return root


def _check_shape(root: etree._Element) -> None:
    elements, level = 0, [root]
    for _ in range(DEPTH):
        elements += len(level)
        if elements > ELEMENTS:
            raise TooLarge(f"an XML document has at most {ELEMENTS} elements")
        level = [child for element in level for child in element]
        if not level:
            return
    raise TooLarge(f"an XML document is at most {DEPTH} elements deep")
