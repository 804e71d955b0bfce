"""`zwheel acl`: the least rights of a Redis user."""

from __future__ import annotations

from typing import Annotated

import typer

from zwheel.broker.acl import Role, rules
from zwheel.broker.address import parse_url
from zwheel.keys import check_name

from .app import command, single
from .context import Context

app = single()


@command(
    app,
    "acl",
    examples=[
        "zwheel acl worker --queue emails",
        "zwheel acl producer reader --queue emails --queue reports --user shop",
        "zwheel acl operator --json | jq -r '.rules[]'",
    ],
)
def acl(
    ctx: Context,
    roles: Annotated[
        list[Role], typer.Argument(metavar="ROLE...", help="producer, worker, reader, operator or doctor.")
    ],
    queue: Annotated[
        list[str] | None,
        typer.Option(
            "--queue", "-q", metavar="NAME", help="Only this queue; may be repeated. Else all of the namespace."
        ),
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", help="The user's name; else zwheel-ROLE.")
    ] = None,
    fsynced: Annotated[
        bool,
        typer.Option("--fsynced", help="With what durable=fsynced takes; Redis before 7.2 refuses such rules."),
    ] = False,
) -> None:
    """Print the least rules of a Redis user, as a command for redis-cli. Nothing is sent.

    On a cluster, and where there are sentinels, the rules have what finding the server takes: say so by the URL.
    With several roles the user gets the rights of all. Its password stays as it is; a new user has none and is off until
    `ACL SETUSER NAME on >PASSWORD`. A worker whose tasks enqueue needs `worker producer`.
    """
    settings = ctx.settings()
    queues = [check_name(name) for name in dict.fromkeys(queue or ())]
    name = check_name(user or "zwheel-" + "-".join(dict.fromkeys(str(role) for role in roles)), "user name")
    kind = "" if settings.url is None else parse_url(settings.url).kind
    found = rules(roles, settings.namespace, queues, kind, fsynced=fsynced)
    if ctx.json:
        ctx.out.value(
            {
                "user": name,
                "roles": [str(role) for role in roles],
                "namespace": settings.namespace,
                "queues": queues,
                "rules": found,
            }
        )
        return
    if name == "default":
        ctx.out.note(
            "note: these rules take all other rights from the user default, whom redis-cli and other programs may be: "
            "make a user of zwheel's own, with another --user"
        )
    ctx.out.verbatim(f"ACL SETUSER {name} {' '.join(found)}")
