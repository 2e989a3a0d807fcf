"""Conversion of matplotlib's SVG files to small inline elements, colored by the style sheet of the page."""

import re
from collections.abc import Mapping
from xml.etree import ElementTree
from xml.etree.ElementTree import Element


def inline(document: str, about: str, variables: Mapping[str, str]) -> str:
    """Return an SVG file of matplotlib as an inline element.

    Args:
        document: the file.
        about: text alternative for screen readers.
        variables: variables of the style sheet, by the color that stands for each.

    """
    printable = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "\ufffd", document)  # labels may be invalid XML
    root = ElementTree.fromstring(printable.encode(errors="backslashreplace"))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.tail = None if element.tag != "text" else element.tail
        if element.tag != "text":
            element.text = None
        element.attrib = _attributes(element, variables)
    _unwrap(root)
    root.attrib = {"viewBox": root.attrib["viewBox"], "class": "plot", "role": "img", "aria-label": about}
    return ElementTree.tostring(root, encoding="unicode")


def _attributes(element: Element, variables: Mapping[str, str]) -> dict[str, str]:
    kept = {}
    for name, value in element.attrib.items():
        name = name.rpartition("}")[2]
        if (name == "id" and element.tag in ("g", "svg")) or (name == "transform" and value.startswith("rotate(-0 ")):
            continue
        if name in ("d", "x", "y", "transform", "width", "height", "points"):
            value = re.sub(r"-?\d+\.\d+", _rounded, value).replace("\n", "").strip()
        if name == "style":
            value = re.sub(r"#[0-9a-f]{6}", lambda colour: _variable(colour[0], variables), value)
            value = re.sub(r" ?font-family: [^;]*(;|$)", "", value)
        kept[name] = value
    return kept


def _variable(colour: str, variables: Mapping[str, str]) -> str:
    return f"var({variables[colour]})" if colour in variables else colour


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _unwrap(element: Element) -> None:
    """Remove metadata, styles, empty definitions, and groups without attributes."""
    children: list[Element] = []
    for child in element:
        if child.tag in ("metadata", "style"):
            continue
        _unwrap(child)
        _share_style(child)
        children += list(child) if child.tag == "g" and not child.attrib else [child]
    element[:] = [child for child in children if child.tag != "defs" or len(child)]


def _share_style(group: Element) -> None:
    """Move the style that all marks of a group share to the group."""
    styles = {mark.attrib.get("style") for mark in group if mark.tag == "use"}
    if group.tag == "g" and len(group) > 1 and len(styles) == 1 and all(mark.tag == "use" for mark in group):
        group.set("style", styles.pop() or "")
        for mark in group:
            mark.attrib.pop("style", None)
