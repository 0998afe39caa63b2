"""What every tier keeps (`archive.tier.protocol`): one suite, run against each implementation by a subclass with a `tier` fixture."""

from collections.abc import Callable, Iterable, Iterator

import pytest

from archive.disk import Bytes
from archive.errors import BadInput, Damaged, NotFound
from archive.pack.naming import PackName
from archive.pack.pack_writer import PackWriter
from archive.tier.protocol import NumberTaken, PackEntry, Tier
from archive.tier.tails import read_pack_tail
from tests.pack.build import Made, make_instance, make_pack, pack_writer, reader_of

NODE = "node-a"


class Interrupted(Exception):
    """What an upload is cut by."""


def put(tier: Tier, sequence: int = 1, *, node: str = NODE, instances: Iterable[Made] = (), length: int | None = None) -> PackName:
    """A pack through its writer, as the packer does it."""
    flagged = [(made, False) for made in instances] or [(make_instance(sequence, bytes([sequence % 256]) * 300_000), False)]
    writer = pack_writer(flagged, sequence=sequence, node=node)
    chunks = writer.stream(reader_of(flagged))
    return tier.put(node, sequence, writer.length if length is None else length, chunks, lambda digest: PackName(node, sequence, digest))


class TierContract:
    """Subclasses give `tier` an empty one, and `left_behind` what lies in it by names."""

    @pytest.fixture
    def tier(self) -> Tier:
        raise NotImplementedError

    @pytest.fixture
    def left_behind(self) -> Callable[[], list[str]]:
        """Names of all files in the tier, whatever they are."""
        raise NotImplementedError

    @pytest.fixture
    def add_file(self) -> Callable[[str], None]:
        """Puts a file of this name into the tier, past the protocol."""
        raise NotImplementedError

    # --- taking

    def test_what_was_put_is_read(self, tier: Tier) -> None:
        name = put(tier)
        wanted = make_pack([make_instance(1, b"\1" * 300_000)], node=NODE)
        assert name == wanted.name
        assert tier.length(name) == len(wanted.data)
        assert tier.read(name, 0, len(wanted.data)) == wanted.data
        for offset, length in ((0, 1), (100, 0), (len(wanted.data) - 1, 1), (1000, 262_144)):
            assert tier.read(name, offset, length) == wanted.data[offset : offset + length]

    def test_its_tail_is_read(self, tier: Tier) -> None:
        tail = read_pack_tail(tier, put(tier, 3))
        assert (tail.header["pack_sequence"], len(tail.series)) == (3, 1)

    def test_nothing_is_seen_before_it_is_whole(self, tier: Tier) -> None:
        seen = []
        flagged = [(make_instance(1), False)]
        writer = pack_writer(flagged, node=NODE)

        def chunks() -> Iterator[Bytes]:
            for chunk in writer.stream(reader_of(flagged)):
                seen.append(list(tier.list_packs(NODE)))
                yield chunk
            seen.append(list(tier.list_packs(NODE)))

        name = tier.put(NODE, 1, writer.length, chunks(), lambda digest: PackName(NODE, 1, digest))
        assert len(seen) > 3
        assert seen == [[]] * len(seen)
        assert [entry.name for entry in tier.list_packs(NODE)] == [name]

    @pytest.mark.parametrize("difference", [-1, 1, 1000])
    def test_another_length_than_said_is_refused(self, tier: Tier, left_behind: Callable[[], list[str]], difference: int) -> None:
        flagged = [(make_instance(1), False)]
        right = pack_writer(flagged, node=NODE).length
        with pytest.raises(Damaged, match=rf"{right} of {right + difference} bytes"):
            put(tier, instances=[flagged[0][0]], length=right + difference)
        assert left_behind() == []

    def test_another_digest_than_named_is_refused(self, tier: Tier, left_behind: Callable[[], list[str]]) -> None:
        pack = make_pack([make_instance(1)], node=NODE)
        with pytest.raises(Damaged):
            tier.put(NODE, 1, len(pack.data), [pack.data], lambda _: PackName(NODE, 1, "0" * 64))
        assert left_behind() == []

    @pytest.mark.parametrize("chunks_before", [0, 1, 3])
    @pytest.mark.parametrize("error", [Interrupted, Damaged, KeyboardInterrupt])
    def test_an_upload_that_is_cut_leaves_nothing(
        self, tier: Tier, left_behind: Callable[[], list[str]], chunks_before: int, error: type[BaseException]
    ) -> None:
        flagged = [(make_instance(1, bytes(300_000)), False)]
        writer = pack_writer(flagged, node=NODE)

        def chunks() -> Iterator[Bytes]:
            for number, chunk in enumerate(writer.stream(reader_of(flagged))):
                if number == chunks_before:
                    raise error("cut")
                yield chunk

        with pytest.raises(error, match="cut"):
            tier.put(NODE, 1, writer.length, chunks(), lambda digest: PackName(NODE, 1, digest))
        assert left_behind() == []
        assert put(tier).sequence == 1

    def test_a_name_that_cannot_be_made_leaves_nothing(self, tier: Tier, left_behind: Callable[[], list[str]]) -> None:
        def no_name(_: str) -> PackName:
            raise Interrupted("no name")

        with pytest.raises(Interrupted):
            tier.put(NODE, 1, 5, [b"12345"], no_name)
        assert left_behind() == []

    # --- numbers

    def test_a_number_is_taken_once(self, tier: Tier, left_behind: Callable[[], list[str]]) -> None:
        name = put(tier, 5)
        before = left_behind()
        streamed: list[int] = []

        def chunks() -> Iterator[Bytes]:
            streamed.append(1)
            yield b"12345"

        with pytest.raises(NumberTaken, match=f"number 5 of node {NODE} is taken by {name}"):
            tier.put(NODE, 5, 5, chunks(), lambda _: PackName(NODE, 5, "0" * 64))
        assert streamed == []  # it is said before a byte is sent
        assert left_behind() == before
        assert put(tier, 5, node="node-b").sequence == 5
        assert put(tier, 6).sequence == 6
        assert put(tier, 4).sequence == 4

    def test_a_number_that_was_taken_meanwhile_is_taken(self, tier: Tier, left_behind: Callable[[], list[str]]) -> None:
        """By another node of the same name, while ours was on its way."""
        flagged = [(make_instance(9), False)]
        writer: PackWriter = pack_writer(flagged, node=NODE)
        other: list[PackName] = []

        def chunks() -> Iterator[Bytes]:
            yield from writer.stream(reader_of(flagged))
            other.append(self.put_by_another(tier, 1))

        with pytest.raises(NumberTaken, match="do two nodes write under one name"):
            tier.put(NODE, 1, writer.length, chunks(), lambda digest: PackName(NODE, 1, digest))
        assert left_behind() == [str(other[0])]

    def put_by_another(self, tier: Tier, sequence: int) -> PackName:
        """Put by another process that thinks it is the same node."""
        raise NotImplementedError

    # --- reading

    def test_short_reads_are_errors(self, tier: Tier) -> None:
        name = put(tier)
        length = tier.length(name)
        for offset, wanted in ((length - 1, 2), (length, 1), (length + 1000, 1), (0, length + 1)):
            with pytest.raises(Damaged):
                tier.read(name, offset, wanted)

    def test_a_stream_gives_what_a_read_gives(self, tier: Tier) -> None:
        name = put(tier, instances=[make_instance(1, bytes(range(256)) * 10_000)])
        length = tier.length(name)
        for offset, wanted in ((0, length), (5, 1 << 20), (length - 1, 1), (7, 0)):
            assert b"".join(map(bytes, tier.stream(name, offset, wanted))) == tier.read(name, offset, wanted)
        with pytest.raises(Damaged):
            list(tier.stream(name, 1, length))
        with pytest.raises(NotFound, match=NODE):
            list(tier.stream(PackName(NODE, 2, "0" * 64), 0, 1))

    def test_what_is_not_there_is_not_found(self, tier: Tier) -> None:
        put(tier)
        for name in (PackName(NODE, 1, "0" * 64), PackName(NODE, 2, "0" * 64), PackName("nobody", 1, "0" * 64)):
            with pytest.raises(NotFound, match=str(name)):
                tier.read(name, 0, 1)
            with pytest.raises(NotFound, match=str(name)):
                tier.length(name)

    # --- listing

    def test_packs_are_listed_from_a_number_in_order(self, tier: Tier) -> None:
        names = [put(tier, sequence, instances=[make_instance(sequence)]) for sequence in (1000, 2, 999, 1, 2001, 10)]
        put(tier, 3, node="node-b")
        names.sort(key=lambda name: name.sequence)
        assert list(tier.list_packs(NODE)) == [PackEntry(name, tier.length(name)) for name in names]
        for first in (0, 1, 3, 999, 1000, 1001, 2001, 2002, 10**9):
            assert [entry.name for entry in tier.list_packs(NODE, first)] == [name for name in names if name.sequence >= first]
        assert list(tier.list_packs("nobody")) == []

    def test_nodes(self, tier: Tier) -> None:
        assert tier.nodes() == []
        for node in ("b", "a", "a-1"):
            put(tier, node=node)
        assert sorted(tier.nodes()) == ["a", "a-1", "b"]

    # --- removing

    def test_a_deleted_pack_is_gone(self, tier: Tier, left_behind: Callable[[], list[str]]) -> None:
        names = [put(tier, sequence) for sequence in (1, 2)]
        tier.delete(names[0])
        assert left_behind() == [str(names[1])]
        assert [entry.name for entry in tier.list_packs(NODE)] == names[1:]
        with pytest.raises(NotFound):
            tier.length(names[0])
        tier.delete(names[0])
        tier.delete(PackName("nobody", 1, "0" * 64))

    def test_what_is_quarantined_is_kept_elsewhere_and_its_number_is_free(self, tier: Tier, left_behind: Callable[[], list[str]]) -> None:
        names = [put(tier, sequence) for sequence in (1, 2)]
        away = tier.quarantine(names[0])
        assert sorted(left_behind()) == sorted([away, str(names[1])])
        assert ([entry.name for entry in tier.list_packs(NODE)], list(tier.strangers()), tier.nodes()) == (names[1:], [], [NODE])
        with pytest.raises(NotFound):
            tier.length(names[0])
        assert tier.quarantine(names[0]) == away
        assert put(tier, 1) == names[0]
        tier.quarantine(names[0])  # Again, over what lies there.
        assert sorted(left_behind()) == sorted([away, str(names[1])])
        assert tier.delete_quarantined(f"x-{NODE}") == []
        assert [f".quarantine/{name}" for name in tier.delete_quarantined(NODE)] == [away]
        assert (left_behind(), tier.quarantined()) == ([str(names[1])], [])

    def test_what_was_in_flight_is_removed_of_this_node_alone(
        self, tier: Tier, left_behind: Callable[[], list[str]], add_file: Callable[[str], None]
    ) -> None:
        name = put(tier)
        others = [".inflight/node-000000000002.zip", ".inflight/node-a-b-000000000002.zip", ".inflight/xnode-a-000000000002.zip"]
        for other in (*others, f".inflight/{NODE}-000000000002.zip", f".inflight/{NODE}-000000000003.zip"):
            add_file(other)
        assert sorted(tier.delete_in_flight(NODE)) == [f"{NODE}-000000000002.zip", f"{NODE}-000000000003.zip"]
        assert sorted(left_behind()) == sorted([*others, str(name)])
        assert tier.delete_in_flight(NODE) == []

    def test_what_was_left_in_flight_does_not_stop_the_next_upload(self, tier: Tier, add_file: Callable[[str], None]) -> None:
        add_file(f".inflight/{NODE}-000000000001.zip")
        assert put(tier).sequence == 1

    # --- strangers

    STRANGERS = (
        "readme.txt",
        f"{NODE}/readme.txt",
        f"{NODE}/000000000/readme.txt",
        f"{NODE}/000000000/000000000001-abc.zip",
        f"{NODE}/000000001/000000000001-{'0' * 64}.zip",
        f"{NODE}/000000007",
        f"{NODE}/²/file",
        f"{NODE}/12/file",
        "no node!/000000000/x",
        ".inflight/x",
    )

    def test_strangers_are_named_and_disturb_nothing(self, tier: Tier, add_file: Callable[[str], None]) -> None:
        names = [put(tier, sequence) for sequence in (1, 2)]
        for stranger in self.STRANGERS:
            add_file(stranger)
        assert sorted(tier.strangers()) == sorted(self.STRANGERS)
        assert tier.nodes() == [NODE]
        assert [entry.name for entry in tier.list_packs(NODE)] == names
        names.append(put(tier, 3))
        assert [entry.name for entry in tier.list_packs(NODE, 2)] == names[1:]

    # --- classes

    def test_storage_classes(self, tier: Tier) -> None:
        name = put(tier)
        data = tier.read(name, 0, tier.length(name))
        assert tier.storage_classes
        for storage_class in tier.storage_classes:
            tier.set_storage_class(name, storage_class)
        assert tier.read(name, 0, len(data)) == data
        with pytest.raises(BadInput, match="no storage class 'lukewarm'"):
            tier.set_storage_class(name, "lukewarm")
        with pytest.raises(NotFound):
            tier.set_storage_class(PackName(NODE, 9, "0" * 64), tier.storage_classes[0])

    def test_a_file_on_this_machine_is_the_pack(self, tier: Tier) -> None:
        name = put(tier)
        path = tier.local_path(name)
        if path is not None:
            assert path.read_bytes() == tier.read(name, 0, tier.length(name))

    def test_a_tier_that_answers_says_nothing(self, tier: Tier) -> None:
        put(tier)
        tier.check()
        assert list(tier.strangers()) == []
