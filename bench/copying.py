"""First copies: a whole folder, and a database alone."""

from __future__ import annotations

import shutil

from tools import Perdure, peers
from workspace import Workspace

FOLDER = "first copy of the folder"
DATABASE = "first copy of the database"


def first_copy(space: Workspace) -> None:
    """``perdure protect files:`` of the whole data set, against a backup of the same folder."""
    space.make_data()
    space.results.begin(FOLDER)
    for round_ in range(1, space.rounds + 1):
        work = space.fresh("first-copy")
        perdure = Perdure(work, "files")
        others = peers(work, "files")
        for turn in range(len(others) + 1):
            # Everyone begins a round in turn, so that nobody always meets the same neighbour.
            which = (turn + round_) % (len(others) + 1)
            if which == 0:
                before = perdure.size()
                cost = perdure.run("protect", f"files:{space.data}", "--pool", perdure.pool, "--as", "data")
                space.results.add(FOLDER, "perdure", round_, cost, repository=perdure.size() - before)
            else:
                peer = others[which - 1]
                before = peer.size()
                cost = peer.backup(space.data)
                space.results.add(FOLDER, peer.name, round_, cost, repository=peer.size() - before)
        shutil.rmtree(work)


def first_copy_of_database(space: Workspace) -> None:
    """``perdure protect sqlite:`` against a backup of the database file, which nobody writes to meanwhile."""
    space.make_data()
    space.results.begin(DATABASE)
    for round_ in range(1, space.rounds + 1):
        work = space.fresh("first-copy-database")
        database = space.copy_of_database(work, "app.db")
        perdure = Perdure(work, "sqlite")
        before = perdure.size()
        cost = perdure.run("protect", f"sqlite:{database}", "--pool", perdure.pool, "--as", "app")
        space.results.add(DATABASE, "perdure", round_, cost, repository=perdure.size() - before)
        for peer in peers(work, "sqlite"):
            before = peer.size()
            cost = peer.backup(database)
            space.results.add(DATABASE, peer.name, round_, cost, repository=peer.size() - before)
        shutil.rmtree(work)
