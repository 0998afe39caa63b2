"""A pack that is gone is damage, never "not found": what the index knows was accepted once (docs/recovery.md)."""

from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from archive.config import load_settings
from archive.dicom.part10 import read_file_meta
from archive.errors import Damaged
from archive.flow.home import Home
from archive.flow.ingest import Ingest
from archive.flow.packing import Packer
from archive.flow.retrieve import Retrieval


def test_everything_of_a_missing_pack_is_refused_as_damaged(tmp_path: Path) -> None:
    data = Path(str(get_testdata_file("MR_small.dcm"))).read_bytes()
    meta = read_file_meta(data)
    with Home(load_settings(overrides={"node": {"data": tmp_path}}, environment={}), "test") as home:
        reception = Ingest(home).begin(
            sop_class_uid=meta.sop_class_uid,
            sop_instance_uid=meta.sop_instance_uid,
            transfer_syntax_uid=meta.transfer_syntax_uid,
            source="test",
        )
        reception.write(data[meta.length :])
        reception.commit()
        Packer(home).pack_now()
        for pack in (tmp_path / "packs").rglob("*.zip"):
            pack.unlink()
        retrieval = Retrieval(home)
        [stored] = home.index.revisions(meta.sop_instance_uid)
        study, series, sop = stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid
        with pytest.raises(Damaged), retrieval.open(stored):
            pass
        with pytest.raises(Damaged):
            retrieval.study_metadata(study)
        with pytest.raises(Damaged):
            retrieval.series_metadata(study, series)
        with pytest.raises(Damaged):
            retrieval.instance_metadata(study, series, sop)
