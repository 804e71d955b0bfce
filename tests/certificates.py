"""Certificates for tests, made by the `openssl` command: an authority, a server's, a client's, and some that are no use."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_SIGNED = ("-CA", "ca.pem", "-CAkey", "ca.key")


def make(directory: Path, names: str = "DNS:localhost") -> Path:
    """Fill a directory: `ca.pem`, and `cert.pem` with `key.pem` for these names only."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    usage = ("-addext", "keyUsage=critical,keyCertSign,digitalSignature")
    whose = ("-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:false")
    x509 = ("-x509", "-days", "2")
    _openssl(directory, "req", *x509, *_KEY, *usage, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=zwheel tests")
    files = ("-keyout", "key.pem", "-out", "cert.pem")
    _openssl(directory, "req", *x509, *_KEY, *whose, *_SIGNED, *files, "-subj", "/CN=localhost")
    return directory


def make_expired(directory: Path) -> None:
    """Add `expired.pem`, also for localhost and of the same authority, with `expired.key`."""
    (directory / "names").write_text("subjectAltName=DNS:localhost\nbasicConstraints=critical,CA:false\n")
    _openssl(directory, "req", *_KEY, "-keyout", "expired.key", "-out", "expired.csr", "-subj", "/CN=localhost")
    # `openssl x509` refuses a certificate that ends before now, from version 3.5 on; `openssl ca` makes it.
    (directory / "index").write_text("")
    (directory / "authority").write_text(
        "[ca]\ndefault_ca=own\n[own]\ndatabase=index\nnew_certs_dir=.\nrand_serial=yes\ndefault_md=sha256\n"
        "unique_subject=no\npolicy=any\n[any]\ncommonName=supplied\n"
    )
    _openssl(
        directory, "ca", "-batch", "-config", "authority", "-in", "expired.csr", "-cert", "ca.pem", "-keyfile", "ca.key",
        "-startdate", "20200101000000Z", "-enddate", "20200201000000Z", "-extfile", "names", "-notext", "-out",
        "expired.pem",
    )  # fmt: skip


def server_options(directory: Path, port: int, certificate: str = "cert", key: str = "key.pem") -> tuple[str, ...]:
    """How a server is told to speak TLS at that port. It asks for no certificate of a client."""
    return (
        *("--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(directory / "ca.pem")),
        *("--tls-cert-file", str(directory / f"{certificate}.pem"), "--tls-key-file", str(directory / key)),
    )


def _openssl(directory: Path, *words: str) -> None:
    done = subprocess.run(["openssl", *words], cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0 and ("unknown option" in done.stderr.lower() or "non-positive" in done.stderr.lower()):
        pytest.skip("this openssl cannot make such a certificate in one step")
    assert done.returncode == 0, done.stderr
