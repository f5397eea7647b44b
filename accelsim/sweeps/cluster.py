"""Dask, for sweeps. Whoever may connect to a scheduler runs code on its workers, so connections are authenticated.

The one place that knows Dask; ``workers`` imports it when it is asked for.
"""

from __future__ import annotations

import ipaddress
import logging
from contextlib import ExitStack
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from distributed import Client, Nanny, Scheduler, Worker
from distributed.deploy.spec import SpecCluster
from distributed.security import Security

from accelsim.errors import AccelsimError

LOOPBACK = "127.0.0.1"
SECONDS = "20s"
# That a scheduler is gone ``Workers`` says, in a line; these would add theirs, with tracebacks.
LOGGERS = ("distributed", "distributed.client", "tornado.application")
# A certificate lives as long as its sweep, in memory; what a machine's clock says is no matter.
EVER = datetime(1970, 1, 2), datetime(9999, 12, 31)


class _WithoutHttp:
    """Dask opens a port for HTTP, dashboard or not, without TLS and open to all users of the machine."""

    def start_http_server(self, *_: object, **__: object) -> None:
        """Does not."""


class LocalScheduler(_WithoutHttp, Scheduler):
    """Without HTTP."""


class LocalWorker(_WithoutHttp, Worker):
    """Without HTTP."""


def connect(stack: ExitStack, place: str, workers: int) -> Any:
    """A client of a cluster, as long as the stack lasts.

    Parameters
    ----------
    stack : ExitStack
    place : str
        "local", for a cluster on this machine's loopback, over TLS with certificates of its own that no file holds;
        or the address of a scheduler. That is tls://, with the certificates that Dask's configuration names, or
        tcp:// on this machine.
    workers : int
        Of a local one.

    Raises
    ------
    AccelsimError
        If the address is neither, or nobody answers there who has the right certificate; if a local one cannot start.
    """
    if place == "local":
        try:
            return stack.enter_context(Client(stack.enter_context(_local(workers)), timeout=SECONDS))
        except (OSError, ValueError, RuntimeError) as error:
            raise AccelsimError(f"cluster: cannot start one on this machine ({_in_a_line(error)})") from error
    _check(place)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
    try:
        return stack.enter_context(Client(place, timeout=SECONDS))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        text = f"cluster: must be a Dask scheduler that answers, got {place} ({_in_a_line(error)})"
        raise AccelsimError(text) from error


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _local(workers: int) -> SpecCluster:
    security = own_security()
    common = {"host": LOOPBACK, "protocol": "tls://", "security": security}
    scheduler = {"cls": LocalScheduler, "options": {**common, "port": 0, "dashboard": False}}
    quiet = {"silence_logs": logging.WARNING}
    options = {**common, **quiet, "worker_class": LocalWorker, "nthreads": 1, "dashboard": False}
    worker = {"cls": Nanny, "options": options}
    return SpecCluster(dict.fromkeys(range(workers), worker), scheduler, worker, security=security, **quiet)


def own_security() -> Security:
    """For a cluster whose processes get it from this one: a new key and its certificate, for all of them."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain).decode()
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), *EVER)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(pem).decode()
    roles = ("client", "scheduler", "worker")
    keys = {f"tls_{role}_key": private for role in roles} | {f"tls_{role}_cert": certificate for role in roles}
    return Security(require_encryption=True, tls_ca_file=certificate, **keys)


def _check(place: str) -> None:
    """Who listens between here and a scheduler that speaks TCP could answer in its name, with code."""
    protocol = None
    try:
        protocol, host = urlsplit(place).scheme, urlsplit(place).hostname or ""
        is_here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = False
    if protocol != "tls" and not (protocol == "tcp" and is_here):
        rule = "must be local, tls://HOST:PORT or, on this machine, tcp://HOST:PORT"
        raise AccelsimError(f"cluster: {rule}, got {place}")
