"""``perdure retention``."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from cyclopts import Parameter

from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.session import Session
from perdure.cli.wording import count
from perdure.model.retention import RetentionPolicy, WhenFull

__all__ = ["policy_document", "retention"]


def retention(
    name: str,
    /,
    *,
    days: float | None = None,
    daily: int | None = None,
    weekly: int | None = None,
    monthly: int | None = None,
    yearly: int | None = None,
    express_fulls: int | None = None,
    incrementals: int | None = None,
    when_full: WhenFull | None = None,
    lock: Annotated[bool | None, Parameter(negative="--no-lock")] = None,
    keep_everything: bool = False,
    pool: str | None = None,
    common: CommonOptions = DEFAULT_OPTIONS,
) -> int:
    """Show or change how long the recovery points of a data source are kept.

    Every moment inside the retention range stays recoverable. Beyond it the daily, weekly, monthly and yearly rules
    keep single recovery points. Nothing is deleted before perdure prune is run, or perdure watch does it. Without any
    option the policy is only shown. A data source that never had a policy keeps everything.

    For example:

        perdure retention app --days 30 --weekly 8 --monthly 12
        perdure retention app

    Args:
        name: The data source.
        days: The retention range, in days.
        daily: Beyond the range keep the last recovery point of each of so many days.
        weekly: Beyond the range keep the last recovery point of each of so many weeks.
        monthly: Beyond the range keep the last recovery point of each of so many months.
        yearly: Beyond the range keep the last recovery point of each of so many years.
        express_fulls: Keep at most so many recovery points; more are thinned out (448 unless set, at most 512).
        incrementals: Keep at most so many log objects for each express full; more are bundled (96 unless set).
        when_full: What happens when the pool is full: stop (with an alert), or thin (out, then go on).
        lock: Lock what is written against deletion for as long as it is to be kept, where the storage can.
        keep_everything: Take the retention range away, so that nothing is ever deleted.
        pool: Do it in the pool at this path, such as a second copy, instead of the one it is protected in.
    """
    changes: dict[str, Any] = {
        key: value
        for key, value in {
            "days": days,
            "daily": daily,
            "weekly": weekly,
            "monthly": monthly,
            "yearly": yearly,
            "express_fulls": express_fulls,
            "incrementals": incrementals,
            "when_full": when_full,
            "lock": lock,
        }.items()
        if value is not None
    }
    if keep_everything:
        changes["days"] = None
    with Session(common) as session:
        protected = session.protected(name, pool)
        policy = protected.vault.policy(protected.source.id)
        if changes:
            policy = replace(policy, **changes)
            protected.vault.set_policy(protected.source.id, policy)
    if common.json:
        print_json({"source": name, "retention": policy_document(policy)})
    else:
        print_lines(_lines(name, policy))
    return 0


def policy_document(policy: RetentionPolicy) -> dict[str, Any]:
    """A policy as JSON has it."""
    return {
        "days": policy.days,
        "daily": policy.daily,
        "weekly": policy.weekly,
        "monthly": policy.monthly,
        "yearly": policy.yearly,
        "express_fulls": policy.express_fulls,
        "incrementals": policy.incrementals,
        "when_full": policy.when_full.value,
        "lock": policy.lock,
    }


def _lines(name: str, policy: RetentionPolicy) -> list[str]:
    if policy.days is None:
        return [f"{name!r} keeps everything. Set a retention range with: perdure retention {name} --days 30"]
    beyond = [
        f"the last recovery point of each of {count(number, period)}"
        for number, period in (
            (policy.daily, "day"),
            (policy.weekly, "week"),
            (policy.monthly, "month"),
            (policy.yearly, "year"),
        )
        if number
    ]
    full = {
        WhenFull.STOP: "protection stops with an alert, and nothing is deleted before its time",
        WhenFull.THIN: "recovery points that the log makes up for are thinned out, then protection goes on",
    }
    days = "1 day" if policy.days == 1 else f"{policy.days:g} days"
    return [
        f"{name!r} keeps every moment of the last {days}.",
        *([f"Beyond that it keeps {', '.join(beyond)}."] if beyond else []),
        f"At most {policy.express_fulls} express fulls, and {policy.incrementals} log objects for each.",
        f"When the pool is full, {full[policy.when_full]}.",
        *(["What is written is locked against deletion where the storage can."] if policy.lock else []),
    ]
