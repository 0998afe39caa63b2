"""Work that opens the index for a verb, done in a child: a damaged LMDB file may crash the process that reads it.

The child sends `{"progress": text}` as it goes, then `{"result": ...}` or `{"error": text, "kind": name}`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from archive.config import Settings
from archive.errors import ArchiveError, Damaged
from archive.node.child import Child, is_crash, manner_of_death
from archive.node.messages import Message, error_of, receive

Progress = Callable[[str], None]


def recover(settings: Settings, progress: Progress) -> object:
    from archive.flow.recovery import describe_report, recover

    report = recover(settings, progress)
    return {"lines": describe_report(report), "damaged": len(report.damaged)}


def rebuild_index(settings: Settings, progress: Progress) -> object:
    from archive.flow.recovery import describe_report, rebuild_index

    report = rebuild_index(settings, progress)
    return {"lines": describe_report(report), "damaged": len(report.damaged)}


def verify(settings: Settings, progress: Progress) -> object:
    from archive.flow.check import verify
    from archive.flow.recovery import renew_torn_pending

    renew_torn_pending(settings)
    return verify(settings, progress)


def repair(settings: Settings, progress: Progress, **how: Any) -> object:
    from archive.flow.repair import How, repair

    return repair(settings, How(**how), progress)


def erase(settings: Settings, progress: Progress) -> object:
    from archive.flow.erasing import erase

    return erase(settings, progress)


def status(settings: Settings, progress: Progress) -> object:
    from archive.node.status import status_of

    return status_of(settings)


JOBS: dict[str, Callable[..., object]] = {
    "recover": recover,
    "rebuild-index": rebuild_index,
    "verify": verify,
    "repair": repair,
    "erase": erase,
    "status": status,
}


def run_job(name: str, settings: Settings, progress: Progress, inherit: Sequence[int] = (), **arguments: Any) -> Any:
    """Run one of `JOBS` in a child and wait for it.

    Parameters
    ----------
    progress : callable
        Gets each line that the job has to say.
    inherit : sequence of int
        Descriptors to pass on: the lock's, where the job writes.
    **arguments
        What else the job is told, as JSON values.

    Returns
    -------
    Any
        The job's report as JSON values: a dataclass is a dict.

    Raises
    ------
    Damaged
        It crashed as one does on a damaged index.
    ArchiveError
        What the job raised, of the same class; or it ended without a word.
    """
    child = Child(name, name, settings, {"arguments": arguments}, inherit)
    try:
        answer = _listen(child, progress)
        code = child.process.wait()
    finally:
        child.kill()
    if answer is None:
        if is_crash(code):
            raise Damaged(f"{name} {manner_of_death(code)}")
        raise ArchiveError(f"{name} {manner_of_death(code)}")
    if "error" in answer:
        raise error_of(answer)
    return answer["result"]


def _listen(child: Child, progress: Progress) -> Message | None:
    try:
        for message in receive(child.channel):
            if "progress" in message:
                progress(str(message["progress"]))
            else:
                return message
    except ConnectionError:
        pass  # It died with something unread; its exit code tells.
    return None
