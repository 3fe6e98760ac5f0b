"""The credentials in URIs, `user:password@` and signed queries: removed where a URI enters, added where it is opened.

A URI that Speck keeps, writes, logs or shows has none. The credentials stay in the memory of the process; a cluster
passes them on to its workers.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

_USER = re.compile(  # the second form has a password with a bare `/`; `host:8080/a@b` has no user
    r"(?<=://)(?:[^/?#\s@'\"]*@|[^/?#\s@:'\"]+:(?!\d+(?:[/?#\s]|$))[^?#\s@'\"]*@)"
)
_QUERY = re.compile(r"(?<=[^\s?'\"])\?[\w.~%-]+=[^\s'\"]*")  # a `?` without a name and `=` is a wildcard
_URI = re.compile(r"\w[\w+.-]*://[^\s<>]+")
_MASK = "***"
_LEAST = 6  # characters of a password that is masked outside of URIs too; shorter ones are parts of words


class Credentials(NamedTuple):
    """What is removed from a URI."""

    user: str  # with the `@`
    query: str  # with the `?`


_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|(API|ACCESS)_?KEY", re.IGNORECASE)

_known: dict[str, Credentials] = {}  # by the URI without them
_values: set[str] = set()  # of environment variables with secrets


def remove(uri: str) -> str:
    """Return a URI without its credentials, which this process remembers; a path is returned unchanged."""
    if "://" not in uri:
        return uri
    user, query, bare = _USER.search(uri), _QUERY.search(uri), strip(uri)
    if bare != uri:
        adopt({bare.rstrip("/"): Credentials(user[0] if user else "", query[0] if query else "")})
    return bare


def strip(uri: str) -> str:
    """Return a URI without its credentials, which nobody remembers."""
    return _QUERY.sub("", _USER.sub("", uri))


def has_literal(uri: str) -> bool:
    """Return whether a URI, its variables left out, has a user without a password, a password, or a query's value."""
    user, query = _USER.search(uri), _QUERY.search(uri)
    return bool(user and not re.fullmatch(r"(?:[^:]*:)?@", user[0])) or bool(query and re.search("=[^&]", query[0]))


def restore(uri: str) -> str:
    """Return a URI with the credentials of the longest remembered URI above it, else the user of the same host."""
    if not _known or "://" not in uri or _USER.search(uri):
        return uri
    above = [bare for bare in _known if uri == bare or uri.startswith(f"{bare}/")]
    user, query = _known[max(above, key=len)] if above else (_user_of_host(uri), "")
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{user}{rest}{'' if _QUERY.search(uri) else query}"


def restore_all(value: Any) -> Any:
    """Return JSON-able data with the credentials of its URIs."""
    if isinstance(value, dict):
        return {key: restore_all(part) for key, part in value.items()}
    if isinstance(value, list):
        return [restore_all(part) for part in value]
    return restore(value) if isinstance(value, str) else value


def known() -> Mapping[str, Credentials]:
    """Return what this process remembers, for `adopt` in another one."""
    return dict(_known)


def adopt(others: Mapping[str, Credentials]) -> None:
    """Remember the credentials of another process, and mask them in the log of this one."""
    _known.update(others)
    if _known:
        _mask_log()


def remember_variable(name: str, value: str) -> None:
    """Mask the value of an environment variable whose name is that of a secret."""
    if _SECRET_NAME.search(name) and len(value) >= _LEAST:
        _values.add(value)
        _mask_log()


def hide(text: str) -> str:
    """Return a text for the user with masks in place of the credentials in its URIs and of remembered passwords."""
    if "://" in text:
        text = _URI.sub(lambda uri: _QUERY.sub(f"?{_MASK}", _USER.sub(f"{_MASK}@", uri[0])), text)
    for secret in _values.union(*map(_secrets, _known.values())):
        text = text.replace(secret, _MASK)
    return text


def are_in(error: BaseException) -> bool:
    """Return whether the traceback of an error shows credentials: in its text, a note, a cause or a part of a group."""
    text = "".join(traceback.format_exception(error, limit=0))  # without lines of code
    return hide(text) != text


def _secrets(credentials: Credentials) -> list[str]:
    password = credentials.user.removesuffix("@").partition(":")[2]
    texts = (password, unquote(password), credentials.query.removeprefix("?"))
    return [text for text in texts if len(text) >= _LEAST]


def _mask_log() -> None:
    logging.getLogger("speck").addFilter(_hide_in_record)  # a second call adds no second filter


def _user_of_host(uri: str) -> str:
    return next((found.user for bare, found in reversed(_known.items()) if _host(bare) == _host(uri)), "")


def _host(uri: str) -> str:
    return "/".join(uri.split("/", 3)[:3])


def _hide_in_record(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    if record.exc_info:
        text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
        record.exc_info = None
    record.msg, record.args = hide(text), ()
    return True
