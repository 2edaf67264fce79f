"""TLS contexts for the tests, from the certificates in certs/ (made by certs/make)."""

import ssl
from pathlib import Path

CERTS = Path(__file__).resolve().parent / "certs"
CA = CERTS / "ca.pem"


def server_context(certificate="server", *, client_certificate=False):
    """A server's context; with client_certificate it demands one that our authority signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / f"{certificate}.pem")
    if client_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(CA)
    return context


def client_context(certificate=None):
    """A client's context that trusts our authority, and may show a certificate of its own."""
    context = ssl.create_default_context(cafile=CA)
    if certificate is not None:
        context.load_cert_chain(CERTS / f"{certificate}.pem")
    return context
