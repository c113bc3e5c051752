"""What a URL of the settings, or of somebody else, may be."""

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_https_or_loopback(url: str) -> bool:
    """Whether what goes there cannot be read on the way: https, or http to this machine. No user, no fragment."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it is what checks it
    except ValueError:
        return False
    if not parts.hostname or "@" in parts.netloc or parts.fragment or not url.isprintable() or " " in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine. host: without brackets and port."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
