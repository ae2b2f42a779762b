"""``perdure express-full``."""

from __future__ import annotations

from perdure.cli.documents import point_document
from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.progress_bar import progress_bar
from perdure.cli.sentences import about_point
from perdure.cli.session import Session

__all__ = ["express_full"]


def express_full(name: str, /, *, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Make a recovery point from an image of the source, of which only changed pages are stored.

    For example:

        perdure express-full app

    Args:
        name: The data source.
    """
    from perdure.protection import image_verbs

    with Session(common) as session:
        protected = session.protected(name)
        with progress_bar(common) as progress:
            point = image_verbs.express_full(protected, cause="on request", progress=progress)
    if common.json:
        print_json({"source": protected.source.name, "point": point_document(point)})
    else:
        print_lines(about_point(point))
    return 0
