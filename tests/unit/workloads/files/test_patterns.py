import pytest

from perdure.model.errors import BadInput
from perdure.workloads.files.patterns import Patterns


@pytest.mark.parametrize(
    ("path", "directory", "excluded"),
    [
        (b"a.tmp", False, True),
        (b"deep/down/b.tmp", False, True),
        (b"keep.tmp", False, False),
        (b"cache", True, True),
        (b"sub/cache", True, False),
        (b"logs", True, True),
        (b"logs", False, False),
        (b"\xff.tmp", False, True),
    ],
)
def test_exclude_follows_gitignore(path: bytes, directory: bool, excluded: bool) -> None:
    """Exclude patterns mean what they mean in a .gitignore file at the root, for any bytes in names."""
    patterns = Patterns(["*.tmp", "!keep.tmp", "/cache", "logs/"])
    assert patterns.excludes(path, directory=directory) is excluded


def test_no_patterns_keep_everything() -> None:
    """Without patterns everything is included and nothing is excluded."""
    patterns = Patterns()
    assert patterns.all_included
    assert patterns.nothing_excluded
    assert patterns.includes(b"x", directory=False)


def test_bad_pattern_is_refused() -> None:
    """A pattern that cannot be read is the caller's mistake, and the error says which kind of pattern."""
    with pytest.raises(BadInput, match="exclude pattern") as caught:
        Patterns(["!"])
    assert caught.value.code == "bad-pattern"
