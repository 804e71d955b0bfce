"""Who may come in: users, passwords, and how far the server can be reached, as far as it tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zwheel.broker.acl import Role
from zwheel.broker.store import Steps
from zwheel.calls import Session
from zwheel.doctor import probe
from zwheel.doctor.finding import Finding, doctor_user, ok, problem, unseen, warning
from zwheel.errors import BrokerRefused
from zwheel.operations.rights import in_words, missing_rights

_LOOPBACK = ("127.", "::1", "localhost", "-::1")


def check_access() -> Steps[list[Finding]]:
    """Users, passwords and listening addresses."""
    port = yield from probe.config("port")
    tls_port = yield from probe.config("tls-port")
    bind = yield from probe.config("bind")
    protected = yield from probe.config("protected-mode")
    user = yield from _whoami()
    open_door = yield from _default_user_is_open()
    findings = []
    local = port == "0" and tls_port in ("0", None)
    reach = [word for word in (bind or "").split() if not word.startswith(_LOOPBACK)]
    outside = not local and (bind is None or bool(reach) or bind == "")
    who = f"connected as {user}" if user else "the user's name cannot be seen"
    if open_door is None and port is None:
        findings.append(unseen("access", "who may come in", f"CONFIG and ACL are refused here ({who})"))
    elif open_door and outside and protected == "no":
        text = "the default user needs no password, protected mode is off, and the server listens beyond this machine"
        cure = "set a password (`requirepass`, or ACL SETUSER default resetpass), or `bind 127.0.0.1`"
        findings.append(problem("access", f"{text}: everybody who reaches it may run any command", cure))
    elif open_door and not local:
        text = "the default user needs no password" + ("" if outside else " for whoever is on that machine")
        cure = "set a password (`requirepass`), or give zwheel a user of its own and switch the default user off"
        findings.append(warning("access", text, cure))
    elif open_door:
        findings.append(ok("access", f"no password, and reached by a Unix socket only; {who}"))
    else:
        findings.append(
            ok("access", f"{who}; the default user {'is closed' if open_door is False else 'cannot be seen'}")
        )
    if not local and outside and protected == "no" and not open_door:
        text = "protected mode is off and the server listens beyond this machine: only passwords keep others out"
        findings.append(warning("access", text, "bind it to the addresses that need it, and use TLS between machines"))
    debug = yield from probe.config("enable-debug-command")
    if debug == "yes" or (debug == "local" and not local):
        text = f"DEBUG is enabled ({debug}): it can stop the server and read its memory"
        findings.append(warning("access", text, "set `enable-debug-command no`"))
    return findings


def check_rights(session: Session, queues: Sequence[str]) -> Steps[list[Finding]]:
    """Whether this user may do all that the doctor does, in these queues."""
    try:
        missing = yield from missing_rights(session, Role.DOCTOR, queues)
    except BrokerRefused:
        # Scripts may not be loaded or run, which `check_scripts` says.
        return []
    if not missing:
        return [ok("rights", "this user has every right that looking and repairing need")]
    text = f"this user lacks {in_words(missing)}: what needs it is not looked at, or not repaired"
    return [warning("rights", text, f"check as {doctor_user(queues)}")]


def _whoami() -> Steps[str | None]:
    try:
        (reply,) = yield (("ACL", "WHOAMI"),)
    except BrokerRefused:
        return None
    return probe.text(reply)


def _default_user_is_open() -> Steps[bool | None]:
    """Whether the default user is on and needs no password; None when neither ACL nor CONFIG tells."""
    try:
        (reply,) = yield (("ACL", "GETUSER", "default"),)
    except BrokerRefused:
        password = yield from probe.config("requirepass")
        return None if password is None else password == ""
    fields: dict[str, Any] = {}
    if isinstance(reply, Mapping):
        fields = {probe.text(name): value for name, value in reply.items()}
        if "enabled" in fields:
            return bool(fields["enabled"]) and "nopass" in [probe.text(flag) for flag in fields.get("flags", ())]
    else:
        fields = {probe.text(name): value for name, value in zip(reply[::2], reply[1::2], strict=True)}
    flags = [probe.text(flag) for flag in fields.get("flags", ())]
    return "on" in flags and "nopass" in flags
