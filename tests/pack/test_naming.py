"""Names of packs and entries: made here, parsed here, and nothing else taken for one."""

import pytest

from archive.errors import NotUnderstood
from archive.pack.naming import PackName, folder_of, in_flight_name, instance_entry, metadata_entry

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize("sequence", [0, 1, 999, 1000, 1001, 999_999_999_999])
@pytest.mark.parametrize("node", ["a", "ct-archive", "N" * 64])
def test_a_name_comes_back(node: str, sequence: int) -> None:
    name = PackName(node, sequence, DIGEST)
    assert PackName.parse(str(name)) == name


def test_a_thousand_packs_share_a_folder() -> None:
    assert str(PackName("ct", 123_456, DIGEST)) == f"ct/000000123/000000123456-{DIGEST}.zip"
    assert folder_of("ct", 999) == "ct/000000000"
    assert folder_of("ct", 1000) == "ct/000000001"


def test_order_of_names_is_order_of_numbers() -> None:
    names = [PackName("n", sequence, DIGEST) for sequence in (2, 10, 999, 1000, 123_456)]
    assert sorted(map(str, names)) == [str(name) for name in names]
    assert sorted(names) == names


GOOD = f"n/000000000/000000000001-{DIGEST}.zip"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "n",
        GOOD + "\n",
        GOOD.upper(),
        GOOD.replace(".zip", ".ZIP"),
        GOOD.replace("n/", "../"),
        GOOD.replace("n/", "/"),
        GOOD.replace("n/", "-n/"),
        GOOD.replace("n/", "N" * 65 + "/"),
        GOOD.replace("/000000000/", "/000000001/"),
        GOOD.replace("000000000001", "00000000001"),
        GOOD.replace("000000000001", "٠٠٠٠٠٠٠٠٠٠٠١"),
        GOOD.replace(DIGEST, DIGEST[:-1]),
        f"x/{GOOD}",
        in_flight_name("n", 1),
    ],
)
def test_nothing_else_is_a_name(text: str) -> None:
    with pytest.raises(NotUnderstood):
        PackName.parse(text)


def test_entries() -> None:
    assert instance_entry("1.2", "1.3", "1.4") == "1.2/1.3/1.4.dcm"
    assert instance_entry("1.2", "1.3", "1.4", "ab-7") == "1.2/1.3/1.4.rab-7.dcm"
    assert metadata_entry("1.2", "1.3") == "1.2/1.3/metadata.json.gz"
    assert in_flight_name("n", 1) == ".inflight/n-000000000001.zip"
