"""What the tests of S3 share: checksums as S3 writes them, and requests that no SDK would send."""

import base64
import hashlib
import zlib

import urllib3

POOL = urllib3.PoolManager(cert_reqs="CERT_NONE")


def b64(value):
    return base64.b64encode(value).decode()


def _table(polynomial, bits):
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (polynomial if byte & 1 else 0)
        table.append(byte)
    return table


def _crc(data, polynomial, bits):
    table, ones = _table(polynomial, bits), (1 << bits) - 1
    value = ones
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return (value ^ ones).to_bytes(bits // 8, "big")


CHECKSUMS = {
    "CRC32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "CRC32C": lambda data: _crc(data, 0x82F63B78, 32),
    "CRC64NVME": lambda data: _crc(data, 0x9A6C9329AC4BC9B5, 64),
    "SHA1": lambda data: hashlib.sha1(data).digest(),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
}


def checksum(name, data):
    """The member of boto3's calls and answers, and its value."""
    return f"Checksum{name}", b64(CHECKSUMS[name](data))


def raw(method, url, body=None, headers=None, **options):
    """One request as it is, without a retry."""
    return POOL.request(method, url, body=body, headers=headers or {}, retries=False, redirect=False, **options)


def error_code(answer):
    text = answer.data.decode()
    return text.partition("<Code>")[2].partition("</Code>")[0]
