"""Dask, for sweeps. Whoever may connect to a scheduler runs code on its workers, so connections are authenticated.

The one place that knows Dask; ``workers`` imports it when it is asked for.
"""

from __future__ import annotations

import ipaddress
import logging
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import cryptography  # noqa: F401 (Dask needs it for certificates, and says so only then)
from distributed import Client, Nanny, Scheduler, Worker
from distributed.deploy.spec import SpecCluster
from distributed.security import Security

from accelsim.errors import AccelsimError

LOOPBACK = "127.0.0.1"
SECONDS = "20s"


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
        If the address is neither, or nobody answers there who has the right certificate.
    """
    if place == "local":
        return stack.enter_context(Client(stack.enter_context(_local(workers)), timeout=SECONDS))
    _check(place)
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # that a scheduler is gone, ``Workers`` says
    try:
        return stack.enter_context(Client(place, timeout=SECONDS))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200]
        raise AccelsimError(f"cluster: must be a Dask scheduler that answers, got {place} ({text})") from error


def _local(workers: int) -> SpecCluster:
    security = Security.temporary()
    common = {"host": LOOPBACK, "protocol": "tls://", "security": security}
    scheduler = {"cls": LocalScheduler, "options": {**common, "port": 0, "dashboard": False}}
    quiet = {"silence_logs": logging.WARNING}
    options = {**common, **quiet, "worker_class": LocalWorker, "nthreads": 1, "dashboard": False}
    worker = {"cls": Nanny, "options": options}
    return SpecCluster(dict.fromkeys(range(workers), worker), scheduler, worker, security=security, **quiet)


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
