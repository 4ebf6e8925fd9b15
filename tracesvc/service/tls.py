"""TLS: the certificate of the service, which may be renewed while it runs."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any, Final

__all__ = ["Certificate", "CertificateError"]

log = logging.getLogger("tracesvc.service")


class CertificateError(Exception):
    """The certificate cannot be used; the message says why."""


class Certificate:
    """A certificate chain and its key, from two PEM files.

    Raises:
      CertificateError: they cannot be read, or do not belong together.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate: Final = certificate
        self.key: Final = key
        self._contexts: list[ssl.SSLContext] = []
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as exc:
            raise CertificateError(
                f"the certificate {self.certificate} with the key {self.key} cannot be used: "
                f"{exc.strerror or exc}"
            ) from exc

    def serve_by(self, config: Any) -> None:
        """Have a server's configuration (anycorn's, or hypercorn's) use it."""
        config.certfile, config.keyfile = str(self.certificate), str(self.key)
        context = config.create_ssl_context()
        self._contexts.append(context)
        config.create_ssl_context = lambda: context

    def reload(self) -> None:
        """Read both files again, for connections to come; where that fails, the old ones stay, and the log has it."""
        try:
            self._load(
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            )  # first: half of it must not be in use
            for context in self._contexts:
                self._load(context)
        except CertificateError as exc:
            log.error("%s; the old one is used on", exc)
        else:
            log.warning("the certificate was read again")
