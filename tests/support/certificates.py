"""A certificate authority and a server certificate for localhost, made with openssl."""
import dataclasses
import pathlib
import subprocess


@dataclasses.dataclass
class Certificates:
    root: pathlib.Path
    certificate: pathlib.Path
    key: pathlib.Path


def _openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def make(folder):
    """Write root.pem, server.pem and server.key into the folder; a second call renews the last two."""
    folder.mkdir(exist_ok=True)
    root, root_key = folder / "root.pem", folder / "root.key"
    if not root.exists():
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                 "-days", "2", "-subj", "/CN=vectron test root", "-keyout", root_key, "-out", root)
    key, request, certificate = (folder / name for name in ("server.key", "server.csr", "server.pem"))
    _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
             "/CN=localhost", "-keyout", key, "-out", request)
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    _openssl("x509", "-req", "-in", request, "-CA", root, "-CAkey", root_key, "-CAcreateserial",
             "-days", "2", "-extfile", extensions, "-out", certificate)
    return Certificates(root, certificate, key)
