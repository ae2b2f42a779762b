"""Secrets, key slots and key sets as objects."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.model.errors import BadInput, Damaged
from perdure.repository.key_sets import KeySet, check_key_object
from perdure.repository.keys import KeyFile, Passphrase, RecoveryKey, Secret
from perdure.repository.slots import KeySlot, _check_of, open_slot, seal_slot

POOL = b"p" * 16
SECRETS = (Passphrase(b"open sesame"), RecoveryKey(b"r" * 32), KeyFile(b"k" * 32))
NAMES = ("keys/passphrase-0a1b2c3d", "keys/recovery-00000000")


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret.kind)
@pytest.mark.parametrize("epochs", [1, 2, 7])
def test_a_slot_opens_with_its_secret_and_nothing_else(secret: Secret, epochs: int) -> None:
    """All master keys come back in order; another secret, another kind of secret and another pool open nothing."""
    masters = tuple(bytes([number]) * 32 for number in range(epochs))
    slot = KeySlot.decode(seal_slot(masters, secret, POOL).encoded(), "s")

    assert open_slot(slot, secret, POOL) == masters
    assert slot.epochs == epochs
    assert open_slot(slot, secret, b"q" * 16) is None
    for other in (Passphrase(b"wrong"), RecoveryKey(b"k" * 32), KeyFile(b"r" * 32)):
        assert open_slot(slot, other, POOL) is None


@pytest.mark.parametrize("kind", [RecoveryKey, KeyFile])
@given(raw=st.binary(min_size=32, max_size=32), change=st.sampled_from([str.lower, str, lambda t: t.replace("-", " ")]))
def test_a_key_is_read_back_from_its_text(kind: type[RecoveryKey | KeyFile], raw: bytes, change: object) -> None:
    """Case and dashes do not matter, and every key comes back as it was."""
    assert callable(change)
    assert kind.parse(change(kind(raw).text())) == kind(raw)


@pytest.mark.parametrize(("kind", "code"), [(RecoveryKey, "bad-recovery-key"), (KeyFile, "bad-key-file")])
@given(at=st.integers(20, 60), letter=st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_a_typing_error_in_a_key_is_noticed(kind: type[RecoveryKey | KeyFile], code: str, at: int, letter: str) -> None:
    """One wrong letter in the first half of a key is reported, not tried."""
    text = kind(b"\x5a" * 32).text()
    wrong = text[:at] + letter + text[at + 1 :]
    if text[at] in ("-", letter):
        return
    with pytest.raises(BadInput) as caught:
        kind.parse(wrong)
    assert caught.value.code == code
    assert text[20:30] not in f"{caught.value!r}{caught.value.hint}"


def test_a_key_file_and_a_recovery_key_are_not_taken_for_each_other() -> None:
    """The text of one kind is refused as the other."""
    with pytest.raises(BadInput):
        RecoveryKey.parse(KeyFile.random().text())
    with pytest.raises(BadInput):
        KeyFile.parse(RecoveryKey.random().text())


@settings(deadline=None)
@given(data=st.binary(max_size=300), name=st.sampled_from(["keys/set-00000001", "keys/passphrase-00000000", "keys/x"]))
def test_garbage_below_keys_is_damage_and_nothing_worse(data: bytes, name: str) -> None:
    """Any bytes at all give a typed error."""
    with pytest.raises(Damaged):
        check_key_object(data, name)


@settings(deadline=None)
@given(
    kind=st.sampled_from(["passphrase", "recovery", "keyfile", "other", ""]),
    salt=st.binary(max_size=40),
    cost=st.lists(st.integers(-3, 17) | st.integers(1 << 20, 1 << 60), max_size=4).map(tuple),
    sealed=st.binary(max_size=130),
)
def test_a_slot_that_somebody_made_up_opens_nothing(
    kind: str, salt: bytes, cost: tuple[int, ...], sealed: bytes
) -> None:
    """A slot with a right checksum and any content is damage, or opens with nothing; it never fails otherwise."""
    data = msgspec.msgpack.encode(KeySlot(kind, salt, cost, sealed, _check_of(kind, salt, cost, sealed)))
    try:
        slot = KeySlot.decode(data, "s")
    except Damaged:
        return
    for secret in SECRETS:
        assert open_slot(slot, secret, POOL) is None


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 5000), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_slot_or_set_is_noticed(at: int, bit: int) -> None:
    """No single flipped bit reads as sound."""
    slot = seal_slot((b"m" * 32, b"n" * 32), RecoveryKey(b"r" * 32), POOL)
    for name, whole in ((NAMES[1], slot.encoded()), ("keys/set-00000003", KeySet.of(3, 2, NAMES, 5).encoded())):
        data = bytearray(whole)
        data[at % len(data)] ^= 1 << bit
        with pytest.raises(Damaged):
            check_key_object(bytes(data), name)


def test_a_set_counts_under_its_own_name_only() -> None:
    """A set that was copied to another number, or that names what is no slot, is refused."""
    data = KeySet.of(3, 1, NAMES, 5).encoded()

    assert KeySet.decode(data, "keys/set-00000003.copy").slots == NAMES
    with pytest.raises(Damaged):
        KeySet.decode(data, "keys/set-00000004")
    for name in ("pool", "keys/../pool-00000000", "keys/set-00000001", "keys/passphrase-0000000g"):
        with pytest.raises(Damaged):
            KeySet.decode(KeySet.of(3, 1, [name], 5).encoded(), "keys/set-00000003")
