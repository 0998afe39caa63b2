"""What is known of a record comes back from JSON; what lacks a key is damage, not a crash."""

from dataclasses import replace

import pytest

from archive.dicom.json import dumps, loads
from archive.errors import Damaged
from archive.pack.descriptor import Deletion, InstanceDescriptor, Plan, Revision
from tests.pack.build import NODE_HEX, make_instance

FULL = replace(make_instance(5).descriptor, pixels={"tag": "7FE00010", "fragments": [1, 2]}, block_crcs=[0, 1, 0xFFFFFFFF])


@pytest.mark.parametrize(
    "descriptor", [FULL, replace(FULL, pixels=None, block_crcs=None), replace(FULL, block_crcs=[]), replace(FULL, digest_kind="sha256")]
)
def test_an_instance_comes_back(descriptor: InstanceDescriptor) -> None:
    assert InstanceDescriptor.from_json(loads(dumps(descriptor.to_json()))) == descriptor


def test_keys_of_later_versions_are_left_aside() -> None:
    assert InstanceDescriptor.from_json(FULL.to_json() | {"colour": "blue"}) == FULL


@pytest.mark.parametrize("key", sorted(set(FULL.to_json()) - {"pixels", "block_crcs"}))
def test_a_missing_key_is_damage(key: str) -> None:
    row = FULL.to_json()
    del row[key]
    with pytest.raises(Damaged, match=key):
        InstanceDescriptor.from_json(row)


def test_a_value_of_another_kind_is_damage() -> None:
    with pytest.raises(Damaged):
        InstanceDescriptor.from_json(FULL.to_json() | {"length": "long"})


def test_plans_and_deletions_come_back() -> None:
    plan = Plan("ab" * 16, 12, [3, 1, 2])
    assert Plan.from_bytes(plan.to_bytes()) == plan
    deletion = Deletion(
        Revision(NODE_HEX, 9), 1_700_000_000_000_000, "cli", [(Revision(NODE_HEX, 1), "1.2.3"), (Revision("cd" * 16, 2), "1.2.4")]
    )
    assert Deletion.from_json(loads(dumps(deletion.to_json()))) == deletion
