"""Which environment variables hold secrets, and how their values are shown."""

from __future__ import annotations

import re
from collections.abc import Mapping

MASK = "********"
_SECRET_NAME = re.compile(r"TOKEN(?!IZERS_)|SECRET|PASSWORD|KEY|CREDENTIAL", re.IGNORECASE)
_URL_LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def is_secret(name: str) -> bool:
    """The name says that the value is a secret: it holds TOKEN, SECRET, PASSWORD, KEY or CREDENTIAL."""
    return _SECRET_NAME.search(name) is not None


def mask(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with the values of secrets, and logins inside URLs, replaced by asterisks."""
    return {name: MASK if is_secret(name) else _URL_LOGIN.sub(MASK, value) for name, value in environment.items()}
