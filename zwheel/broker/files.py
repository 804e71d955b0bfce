"""The files that a URL names: a password, and what TLS needs. A file that is missing or wrong is told by its option."""

from __future__ import annotations

import ssl
from typing import Any

from redis.credentials import CredentialProvider

from zwheel.broker.address import Address
from zwheel.errors import ConfigError

_LONGEST = 65_536


class PasswordFile(CredentialProvider):
    """Reads the password anew for each connection, so that a password can be changed while everything runs."""

    def __init__(self, address: Address) -> None:
        self._path = address.password_file
        self._username = address.username
        #: What was read last, for those who must not show it.
        self.password: str | None = None

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """The user and its password. Raises: ConfigError."""
        self.password = _password(self._path)
        return (self._username, self.password) if self._username else (self.password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The same, for async connections: a file so small is read at once."""
        return self.get_credentials()


def login(address: Address) -> dict[str, Any]:
    """How redis-py is told to log in. Raises: ConfigError when there is a file with the password, and it is no use."""
    if not address.password_file:
        return {"username": address.username, "password": address.password}
    provider = PasswordFile(address)
    provider.get_credentials()
    return {"credential_provider": provider}


def _password(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            password = file.read(_LONGEST).rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise _useless("password_file", path, error) from error
    if not password or len(password) + 2 >= _LONGEST or "\n" in password:
        raise ConfigError(f"password_file={path} must hold the password, in one line")
    return password


def check_files(address: Address) -> None:
    """Read the files that TLS needs, as each connection will. Raises: ConfigError, naming the option that is wrong."""
    named = {name: value for name, value in address.tls.items() if isinstance(value, str)}
    authority, directory = named.get("ssl_ca_certs"), named.get("ssl_ca_path")
    certificate, key = named.get("ssl_certfile"), named.get("ssl_keyfile")
    if not (authority or directory or certificate):
        return
    context = ssl.create_default_context()
    for name, path in (("ssl_ca_certs", authority), ("ssl_certfile", certificate), ("ssl_keyfile", key)):
        if path:
            try:
                open(path, "rb").close()
            except OSError as error:
                raise _useless(name, path, error) from error
    try:
        if authority or directory:
            context.load_verify_locations(cafile=authority, capath=directory)
    except (OSError, ValueError) as error:
        raise _useless("ssl_ca_certs", authority or directory, error) from error
    try:
        if certificate:
            context.load_cert_chain(certificate, key, named.get("ssl_password", ""))
    except (OSError, ValueError) as error:
        if "KEY_VALUES_MISMATCH" in str(error):
            raise ConfigError(f"ssl_keyfile={key} is not the key of ssl_certfile={certificate}") from error
        raise ConfigError(
            f"ssl_certfile={certificate} and its key ({key or 'in the same file'}) cannot be used: they must be PEM files, "
            "and ssl_password the right one where the key has one"
        ) from error


def _useless(name: str, path: object, error: Exception) -> ConfigError:
    why = "it is no PEM file with certificates" if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None)
    return ConfigError(f"{name}={path} cannot be used: {why or 'it is no text'}")
