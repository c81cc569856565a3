"""Where the server is, and how it is spoken to."""

from __future__ import annotations

import ssl


class Configuration:
    """Settings of a client; set what differs.

    Attributes:
        host: address of the server; ``https`` unless it says otherwise.
        verify_ssl: whether the server's certificate is checked.
        ssl_ca_cert: file with the certificates of authorities to trust, in place of the system's.
        cert_file: certificate to show to the server, with ``key_file``.
        key_file: key of that certificate.
        proxy: address of a proxy for requests; none is used unless given.
    """

    def __init__(self) -> None:
        self.host = "http://127.0.0.1:8080"
        self.verify_ssl = True
        self.ssl_ca_cert: str | None = None
        self.cert_file: str | None = None
        self.key_file: str | None = None
        self.proxy: str | None = None

    def base(self) -> str:
        """Return the address without a slash at its end."""
        host = self.host.rstrip("/")
        return host if "://" in host else f"https://{host}"

    def ssl_context(self) -> ssl.SSLContext:
        """Return what connections are secured by."""
        context = ssl.create_default_context(cafile=self.ssl_ca_cert)
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file)
        if not self.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
