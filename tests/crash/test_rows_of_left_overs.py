"""Row R6 of the crash table in docs/recovery.md: one process dies, and is started again while the others go on."""

from pathlib import Path
from unittest import mock

import pytest

from archive.flow.deletion import Deleter
from archive.flow.left_over import refuse_unpublished
from archive.index.pending import PendingIndex
from archive.pack.segment import LargeRecord
from tests.crash.cutting import Cut
from tests.crash.doomed import Doomed, restarted
from tests.crash.rows import LARGE, SERIES, SMALL, assert_sent_again
from tests.flow.objects import Object, living

ALLOWED = {"deletion": {"allowed": True}}


@pytest.mark.parametrize("kept", [[], [SMALL]], ids=["alone", "beside another"])
@pytest.mark.parametrize("sent", [SERIES[0], LARGE], ids=["small", "large"])
def test_R6_what_was_sent_again_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: Object, kept: list[Object]) -> None:
    """And packed, or not: the record that nobody was told of does not bring it back."""
    doomed = Doomed(tmp_path / "data", None, **ALLOWED)
    doomed.life.send(*kept)
    with monkeypatch.context() as patch:
        patch.setattr(PendingIndex, "add", mock.Mock(side_effect=Cut))
        patch.setattr(LargeRecord, "seal", lambda _: None)  # The dead tidy nothing up.
        doomed.die_in(lambda: doomed.life.send(sent))
    with living(doomed.settings) as life:
        refuse_unpublished(life.home)
        assert_sent_again(life, sent, "new")
        Deleter(life.home).delete([sent.sop_instance_uid], "test")
        life.assert_served(kept)
    for _ in range(2):
        with restarted(doomed.settings) as (report, life):
            assert report.damaged == []
            assert life.home.index.revisions(sent.sop_instance_uid) == []
            life.assert_served(kept)
            life.packer.pack_now()


def test_R6_what_was_found_is_left_alone(tmp_path: Path) -> None:
    """Packed, deleted or waiting: nothing of it is made void."""
    doomed = Doomed(tmp_path / "data", None, **ALLOWED)
    doomed.life.send(SERIES[0], SMALL)
    doomed.life.packer.pack_now()
    doomed.life.send(SERIES[1], SERIES[2])
    Deleter(doomed.life.home).delete([SERIES[2].sop_instance_uid], "test")
    doomed.die()
    with living(doomed.settings) as life:
        assert life.home.journal.left_over
        refuse_unpublished(life.home)
        with life.home.index.pending.environment.reading() as t:
            assert list(life.home.index.pending.voids(t)) == []
        life.assert_served([SERIES[0], SERIES[1], SMALL])
    with restarted(doomed.settings) as (_, life):
        life.assert_served([SERIES[0], SERIES[1], SMALL])
