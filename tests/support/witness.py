"""Keeps what the services sent and logged during a run of tests, and every API key that was made, to
find out at the end whether a raw key was among it.

A raw key is in no answer, so it is taken out of the SDK token as the services do it
(docs/security.md): HMAC-SHA256 of the secret makes the key, libsodium opens the seal.
"""
import base64
import ctypes
import ctypes.util
import hashlib
import hmac
import json
import mmap
import re
import tempfile
import threading

_spool = tempfile.TemporaryFile(prefix="vectron-seen-")  # pylint: disable=consider-using-with
_lock = threading.Lock()
_keys = set()
_sodium = ctypes.CDLL(ctypes.util.find_library("sodium"))
NONCE, TAG = 24, 16
RAW_KEY = re.compile(rb"vtk_[0-9A-Za-z]{8}_[0-9A-Za-z_-]{43}")


def _decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def claims(token):
    return json.loads(_decode(token.split(".")[1]))


def raw_key(token, secret):
    """The API key that is sealed in an SDK token, as bytes."""
    said = claims(token)
    sealed = _decode(said["api_key"])
    binding = f"{said['key_id']}\n{said['sub']}".encode()
    seal_key = hmac.new(secret.encode(), b"vectron: seal of API keys, 1", hashlib.sha256).digest()
    out = ctypes.create_string_buffer(len(sealed) - NONCE - TAG)
    code = _sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(
        out, None, None, sealed[NONCE:], ctypes.c_ulonglong(len(sealed) - NONCE), binding,
        ctypes.c_ulonglong(len(binding)), sealed[:NONCE], seal_key)
    assert code == 0, "the secret does not open the key"
    assert RAW_KEY.fullmatch(out.raw), "what was sealed is no key"
    return out.raw


def saw(data):
    """Bytes that a service sent or logged."""
    with _lock:
        _spool.write(data)
        _spool.write(b"\n")


def made(key):
    """A raw key that there is."""
    with _lock:
        _keys.add(key)


def forms(key):
    """The key as it would look in clear, in hexadecimal digits, and in base64 at any offset."""
    yield key
    yield key.hex().encode()
    for offset in range(3):
        text = base64.b64encode(b"\0" * offset + key)
        yield text[4 if offset else 0:-4]


def found(keys, data):
    """Those of the keys that are in data, in any form."""
    return {key for key in keys if any(data.find(form) >= 0 for form in forms(key))}


def check():
    """(number of bytes seen, number of keys made, what was found)."""
    with _lock:
        _spool.flush()
        size = _spool.tell()
        if size == 0:
            return 0, len(_keys), set()
        with mmap.mmap(_spool.fileno(), 0, access=mmap.ACCESS_READ) as data:
            # Any raw key, also one of which nobody told us.
            return size, len(_keys), found(_keys, data) | set(RAW_KEY.findall(data))
