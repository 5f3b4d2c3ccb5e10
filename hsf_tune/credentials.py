"""Passwords in addresses: used by the process they were given to, and never written or shown.

Whatever holds an address (a configuration, a record, a page, a message) holds it without the name
and password in front of its host. Only the code that connects asks for the whole.
"""

from __future__ import annotations

import re

_IN_FRONT_OF_HOST = re.compile(r"(?<=://)[^/\s'\"]*@")
_IN_QUERY = re.compile(
    r"([?&](?:[\w-]*(?:password|passwd|pwd|token|secret|signature)|sig|key)=)[^&\s'\"]*",
    re.IGNORECASE,
)
_GIVEN: dict[str, str] = {}  # address without its password -> as this process was given it


def redacted(text: str) -> str:
    """Any text, with what looks like the password of an address taken out of it."""
    return _IN_QUERY.sub(r"\1***", _IN_FRONT_OF_HOST.sub("", text))


def kept_apart(address: str) -> str:
    """An address without its password, which `complete` puts back in this process."""
    bare = redacted(address)
    if bare != address:
        _GIVEN[bare] = address
    return bare


def complete(address: str) -> str:
    """The address as this process was given it."""
    return _GIVEN.get(address, address)
