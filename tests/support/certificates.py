"""Throwaway certificates for 127.0.0.1."""

import subprocess
from pathlib import Path


def make_certificates(folder: Path) -> None:
    """ca.pem, and server, client, stranger: .pem and .key; ca vouches for the first two.

    Raises FileNotFoundError if there is no openssl.
    """

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for name in ("ca", "stranger"):
        out = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
        openssl(*new, "-x509", "-days", "2", "-subj", f"/CN={name}", *out)
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
        request = ["-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-days", "2"]
        openssl("x509", *request, *signed)
