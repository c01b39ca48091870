"""XML of annotation tools: read without entities, errors in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

from wsolpipe.contract.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    Element = ElementTree.Element


def read_xml_tree(path: Path) -> Element:
    """Root element of an XML file; a document type, which could define entities, is refused.

    Raises
    ------
    DataError
        If it cannot be read or is not XML; names the line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise DataError(msg) from error
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        msg = f"{path} declares a document type or entities, which are not read"
        raise DataError(msg, hint="export it again without them")
    try:
        return ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        msg = f"{path}:{error.position[0]}: not XML: {str(error).partition(':')[0]}"
        raise DataError(msg) from error


def text_of(element: Element, name: str) -> str:
    """Text of a child, empty where there is none."""
    return (element.findtext(name) or "").strip()
