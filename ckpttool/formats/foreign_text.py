"""Text where a checkpoint should be: Git LFS pointers, web pages, a server's answers."""

from __future__ import annotations

import html
import re

from ckpttool.errors import printable
from ckpttool.formats.foreign_verdict import Verdict
from ckpttool.formats.strict_json import parse
from ckpttool.model import Json
from ckpttool.source import Source
from ckpttool.units import size

_POINTER = re.compile(rb"\s*version https://(?:git-lfs\.github\.com|hawser\.github\.com)/spec/v1\s")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_CODE = re.compile(r"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_ELEMENT = re.compile(r"<([A-Za-z_][\w:.-]*)")
_SAYING = ("error", "message", "detail", "error_description", "msg", "title")
_SHOWN = 200


def lfs_pointer(source: Source, head: bytes) -> Verdict | None:
    """A Git LFS pointer, with the real file's digest and size."""
    if source.size > 1024 or not _POINTER.match(head):
        return None
    oid = re.search(rb"^oid sha256:([0-9a-f]{64})\s*$", head, re.MULTILINE)
    nbytes = re.search(rb"^size (\d{1,18})\s*$", head, re.MULTILINE)
    facts: dict[str, Json] = {}
    real = ""
    if nbytes:
        facts["bytes"] = int(nbytes[1])
        real = f"; the real file is {int(nbytes[1])} bytes ({size(int(nbytes[1]))})"
    if oid:
        facts["oid"] = f"sha256:{oid[1].decode()}"
        real += f", sha256 {oid[1].decode()}"
    name = re.split(r"[/\\]", source.name)[-1]
    hint = f"git lfs install, then: git lfs pull --include='{printable(name)}'"
    message = f"a Git LFS pointer of {size(source.size)}, not the file itself{real}"
    return Verdict("git-lfs-pointer", "a Git LFS pointer", message, hint, facts)


def markup(source: Source, head: bytes) -> Verdict | None:
    """A web page with its title, or an XML document with the message in it."""
    text = _text(head).lstrip()
    if not text.startswith("<") or not re.match(r"<[!?A-Za-z]", text):
        return None
    lower = text[:2000].lower()
    if "<!doctype html" in lower or "<html" in lower or "<head" in lower:
        title = _match(_TITLE, text)
        what = f"a web page: {title!r}" if title else "a web page without a title"
        hint = "the address gave a page instead of the file: sign in, accept its terms or use a direct link"
        return Verdict("html", "a web page", what, hint, {"title": title})
    said = " – ".join(filter(None, (_match(_CODE, text), _match(_MESSAGE, text), _match(_TITLE, text))))
    element = _match(_ELEMENT, text)
    what = f"an XML document: {said}" if said else f"an XML document of <{element}>"
    hint = "the server answered with this instead of the file: check the link and fetch it again"
    return Verdict("xml", "an XML document", what, hint, {"title": said or element})


def json_text(source: Source, head: bytes) -> Verdict | None:
    """A JSON text, with what it says where it is a server's error."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] not in (b"{", b"[") or b"\0" in head:
        return None
    whole = source.size <= len(head)
    value = parse(text).value if whole else None
    if value is None and not _begins_like_json(text):
        return None
    if isinstance(value, dict) and "weight_map" in value:
        hint = "verify reads such an index where its name ends in .index.json and its shards lie beside it"
        return Verdict("json", "an index of shards", "an index of shards, not a shard", hint)
    said = _said(value)
    what = f"a JSON text: {said!r}" if said else f"a JSON text, {size(source.size)}"
    hint = "the server answered with this instead of the file: check the link and fetch it again" if said else ""
    return Verdict("json", "a JSON text", what, hint, {"title": said})


def _begins_like_json(text: bytes) -> bool:
    return re.match(rb'(?:\{\s*"[^"\x00-\x1f]*"\s*:|\[\s*[\[{"\d-])', text) is not None


def _said(value: Json) -> str:
    if not isinstance(value, dict):
        return ""
    for key in _SAYING:
        found = value.get(key)
        if isinstance(found, dict):
            found = found.get("message")
        if isinstance(found, str) and found:
            return _shown(found)
    return ""


def plain_text(head: bytes) -> Verdict | None:
    """Text of no known kind, with its first line; None for anything binary."""
    text = _text(head)
    printing = sum(c.isprintable() or c in "\r\n\t" for c in text)
    if not text.strip() or printing < len(text) or "\ufffd" in text[:-3]:
        return None
    first = _shown(text.strip().splitlines()[0])
    return Verdict("text", "a text", f"a text that begins with {first!r}", facts={"title": first})


def _text(head: bytes) -> str:
    return head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")


def _match(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return _shown(html.unescape(found[1])) if found else ""


def _shown(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
