"""Questions to the NameNodes of one HDFS: in time, tried on with the next one, and again a moment later."""

import getpass
import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import requests
from hdfs.client import Client, InsecureClient, _Request
from hdfs.util import HdfsError
from requests.adapters import HTTPAdapter

from archive.config import WebhdfsSection
from archive.errors import ArchiveError, Unavailable, WrongUse
from archive.tier.webhdfs_answers import TRY_ANOTHER, error_of, exception_of

logging.getLogger("hdfs").setLevel(logging.WARNING)  # it says "Instantiated" for each client

_METHODS = {
    "CREATE": "PUT",
    "DELETE": "DELETE",
    "GETFILEBLOCKLOCATIONS": "GET",
    "GETFILECHECKSUM": "GET",
    "GETFILESTATUS": "GET",
    "LISTSTATUS_BATCH": "GET",
    "MKDIRS": "PUT",
    "OPEN": "GET",
    "RENAME": "PUT",
    "SETSTORAGEPOLICY": "PUT",
}
_ASK: dict[str, Callable[..., requests.Response]] = {
    operation: _Request(method, allow_redirects=False).to_method(operation) for operation, method in _METHODS.items()
}
FIRST_PAUSE_SECONDS, PAUSE_SECONDS_MAX = 0.1, 2.0


class Answer(NamedTuple):
    """What a NameNode said.

    Attributes
    ----------
    json : object
        The body; None where it is empty.
    location : str
        Where it sends the caller on to, empty where nowhere.
    """

    json: Any
    location: str


class NameNodes:
    """One HDFS, by the addresses of its NameNodes.

    Parameters
    ----------
    addresses : list of str
        `HOST:PORT` of each; of an HA pair only the active one does what is asked.
    settings : WebhdfsSection
        User, time-outs.

    Raises
    ------
    WrongUse
        Kerberos is asked for and its package is not installed, or nobody's name is known.
    """

    def __init__(self, addresses: list[str], settings: WebhdfsSection) -> None:
        self._settings = settings
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy and no .netrc of the environment stands between an archive and its storage
        self._session.mount("http://", HTTPAdapter(pool_connections=len(addresses), pool_maxsize=settings.reads_max))
        self._clients = [_client(address, settings, self._session) for address in addresses]
        self._addresses = addresses
        self._lock = threading.Lock()
        self._first = 0  # the one that answered last

    def ask(self, operation: str, path: str, patience_seconds: float = 0.0, **parameters: str | int) -> Answer:
        """One operation.

        It may have been done although it is `Unavailable`, or be done twice: whoever asks for a change looks what became of it.

        Parameters
        ----------
        path : str
            Absolute, not quoted.
        patience_seconds : float
            Where no NameNode does it, it is asked again for as long as this.

        Raises
        ------
        NotFound
            There is no such path.
        Unavailable
            No NameNode answered, or not as it should.
        """
        until, pause = time.monotonic() + patience_seconds, FIRST_PAUSE_SECONDS
        while True:
            for at in self._order():
                try:
                    answer = self._ask_one(at, operation, path, parameters)
                except _TryAnother as error:
                    last = error
                else:
                    with self._lock:
                        self._first = at
                    return answer
            if time.monotonic() + pause > until:
                raise last.error
            time.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)

    def _order(self) -> list[int]:
        with self._lock:
            first = self._first
        return [(first + at) % len(self._clients) for at in range(len(self._clients))]

    def _ask_one(self, at: int, operation: str, path: str, parameters: dict[str, str | int]) -> Answer:
        what = f"{operation} {path} at NameNode {self._addresses[at]}"
        try:
            answer = _ASK[operation](self._clients[at], path, strict=False, **parameters)
            body = json.loads(answer.content) if answer.content else None
        except requests.exceptions.RequestException as error:
            raise _TryAnother(Unavailable(f"{what}: {_cause(error)}")) from error
        except ValueError as error:
            raise _TryAnother(Unavailable(f"{what}: HTTP status {answer.status_code} with a body that is not JSON")) from error
        except HdfsError as error:
            failed = error_of(what, 401 if error.exception is None else 403, error.exception or "", error.message)
            raise (_TryAnother(failed) if error.exception in TRY_ANOTHER else failed) from error
        except (KeyError, TypeError) as error:  # the package expects a RemoteException in whatever is JSON
            raise _TryAnother(Unavailable(f"{what}: the answer is not WebHDFS")) from error
        if answer.ok:
            return Answer(body, answer.headers.get("Location", ""))
        exception, message = exception_of(body)
        failed = error_of(what, answer.status_code, exception, message)
        if exception in TRY_ANOTHER or not exception:
            raise _TryAnother(failed)
        raise failed

    def live_data_nodes(self) -> dict[str, str]:
        """`HOST:PORT` of each DataNode's data transfer by that of its HTTP server, which redirects name; empty where it is not known."""
        for at in self._order():
            url = f"http://{self._addresses[at]}/jmx?qry=Hadoop:service=NameNode,name=NameNodeInfo"
            try:
                answer = self._session.get(url, timeout=(self._settings.connect_seconds, self._settings.answer_seconds))
                (bean,) = answer.json()["beans"]
                nodes = json.loads(bean["LiveNodes"])
                return {
                    f"{name.rpartition(':')[0]}:{node['infoAddr'].rpartition(':')[2]}": node["xferaddr"] for name, node in nodes.items()
                }
            except (requests.exceptions.RequestException, LookupError, ValueError, TypeError):
                continue
        return {}


class _TryAnother(Exception):
    """This NameNode does not do it now."""

    def __init__(self, error: ArchiveError) -> None:
        super().__init__(str(error))
        self.error = error


def _client(address: str, settings: WebhdfsSection, session: requests.Session) -> Client:
    timeout = (settings.connect_seconds, settings.answer_seconds)
    if settings.kerberos:
        try:
            from hdfs.ext.kerberos import KerberosClient
        except ImportError as error:
            raise WrongUse(f"webhdfs.kerberos needs the package's extra (pip install 'dicom-archive[kerberos]'): {error}") from error
        return KerberosClient(f"http://{address}", timeout=timeout, session=session)
    try:
        user = settings.user or getpass.getuser()
    except (KeyError, OSError) as error:
        raise WrongUse(f"webhdfs.user is not set, and this process's user has no name: {error}") from error
    return InsecureClient(f"http://{address}", user=user, timeout=timeout, session=session)


def _cause(error: BaseException) -> str:
    """The innermost reason, without the names of Python's objects."""
    reason = error
    while reason.args and isinstance(inner := getattr(reason.args[0], "reason", reason.args[0]), BaseException):
        reason = inner
    return str(reason).rpartition(">: ")[2] or type(reason).__name__
