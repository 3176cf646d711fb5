"""TLS: the certificate is checked, renewed without a restart, and plain text gets no answer."""
import socket
import ssl
import time

import pytest

from support import certificates
from support.process import wait_until


def serial(address, root):
    host, port = address.rsplit(":", 1)
    context = ssl.create_default_context(cafile=root)
    with socket.create_connection((host, int(port)), timeout=5) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as tls:
            assert tls.version() == "TLSv1.3"
            return tls.getpeercert()["serialNumber"]


def test_only_tls_1_3(tls_cluster):
    host, port = tls_cluster.http_address.rsplit(":", 1)
    context = ssl.create_default_context(cafile=tls_cluster.root_certificate_file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection((host, int(port)), timeout=5) as plain:
        with pytest.raises(OSError):
            context.wrap_socket(plain, server_hostname="localhost")


def test_plain_text_on_a_tls_port(tls_cluster):
    host, port = tls_cluster.http_address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"HTTP/1.1 200" not in plain.recv(4096)


def test_a_new_certificate_is_taken_over(tls_cluster):
    root = tls_cluster.root_certificate_file
    addresses = (tls_cluster.http_address, tls_cluster.grpc_address, tls_cluster.auth_http_address)
    before = [serial(address, root) for address in addresses]
    time.sleep(1.1)  # files are looked at once a second
    certificates.make(tls_cluster.folder / "tls")
    for address, old in zip(addresses, before):
        wait_until(lambda a=address, o=old: serial(a, root) != o, seconds=10,
                   what="the new certificate")


def test_a_broken_certificate_keeps_the_old_one(tls_cluster):
    certificate = tls_cluster.tls.certificate
    good = certificate.read_bytes()
    before = serial(tls_cluster.http_address, tls_cluster.root_certificate_file)
    time.sleep(1.1)
    certificate.write_text("no certificate")
    try:
        time.sleep(1.1)
        assert serial(tls_cluster.http_address, tls_cluster.root_certificate_file) == before
    finally:
        certificate.write_bytes(good)
