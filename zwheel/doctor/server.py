"""Checks of the server itself. Each gives its findings; what the server does not let us see becomes one that says so."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from zwheel.broker.connect import check_kind, check_server
from zwheel.broker.store import Steps
from zwheel.calls import Session
from zwheel.doctor import eviction, probe
from zwheel.doctor.access import check_access
from zwheel.doctor.advisories import fixed_in, known_faults, parse_version
from zwheel.doctor.finding import Finding, doctor_user, ok, problem, unseen, warning
from zwheel.errors import BrokerError, BrokerRefused, BrokerUnavailable, OutcomeUnknown

#: How far this machine's clock may be from the server's, seconds.
SKEW_S = 5.0
#: Shares of `maxmemory`, or of the machine's memory, that are worth a word.
WARN_SHARE, FULL_SHARE = 0.75, 0.9
FRAGMENTED = 1.5
#: Below this a high ratio says nothing, bytes.
FRAGMENTED_FROM = 100 * 1024 * 1024

Check = Callable[[], Steps[list[Finding]]]


def check_url(url: str) -> Steps[None]:
    """See whether the server is of the kind that the URL says: else what is found there is not all. Raises: BrokerRefused."""
    try:
        fields = yield from probe.info("server")
    except BrokerRefused:
        return
    check_kind(fields, url)


def check_redis(session: Session) -> Steps[list[Finding]]:
    """Look at everything about the server that matters to jobs. Raises: BrokerUnavailable, OutcomeUnknown."""
    checks: tuple[tuple[str, str, Check], ...] = (
        ("server", "the server's family and version", check_version),
        ("role", "whether this is a primary", check_role),
        ("eviction", "the eviction policy", check_eviction),
        ("persistence", "whether jobs outlive a restart", check_persistence),
        ("memory", "the memory", check_memory),
        ("clock", "the server's clock", lambda: check_clock(session)),
        ("scripts", "whether scripts may run", check_scripts),
        ("access", "who may come in", check_access),
    )
    findings: list[Finding] = []
    for name, what, check in checks:
        try:
            findings += yield from check()
        except (BrokerUnavailable, OutcomeUnknown):
            raise
        except BrokerError as error:
            findings.append(unseen(name, what, error))
    return findings


def check_version() -> Steps[list[Finding]]:
    """The server's family and version, and the known faults of its Lua engine."""
    fields = yield from probe.info("server")
    try:
        check_server(fields)
    except BrokerRefused as error:
        return [problem("server", str(error), "upgrade the server, or use another one")]
    family = "Valkey" if "valkey_version" in fields else "Redis"
    written = fields.get(f"{family.lower()}_version", "")
    mode = fields.get("redis_mode") or fields.get("server_mode") or "standalone"
    findings = [ok("server", f"{family} {written}, {mode}")]
    version = parse_version(written)
    faults = known_faults(family, version) if version else []
    if version is None:
        findings.append(unseen("faults", "whether its Lua engine has known faults", f"{written!r} is no version"))
    elif not faults:
        findings.append(ok("faults", f"no known fault of the Lua engine in {family} {written}"))
    else:
        named = "; ".join(f"{', '.join(fault.names)} ({fault.what})" for fault in faults)
        newer = fixed_in(family, version)
        findings.append(
            warning(
                "faults",
                f"{family} {written} is older than the fixes of {named}: whoever may run a script may take over the server",
                f"upgrade to {family} {newer} or newer; a distribution may have mended its package under the old number"
                if newer
                else "upgrade to a newer branch",
            )
        )
    return findings


def check_role() -> Steps[list[Finding]]:
    """Primary or replica: on a replica every write is refused."""
    fields = yield from probe.info("replication")
    role = fields.get("role", "")
    if role == "slave":
        primary = f"{fields.get('master_host', '?')}:{fields.get('master_port', '?')}"
        text = f"this is a replica of {primary}: it refuses every write with READONLY, so no job is taken in, claimed or ended"
        return [problem("role", text, f"connect to the primary, {primary}")]
    if role != "master":
        return [unseen("role", "whether this is a primary", f"INFO replication says role {role!r}")]
    replicas = int(probe.number(fields, "connected_slaves") or 0)
    return [ok("role", f"primary with {replicas} replicas" if replicas else "primary, no replica is connected")]


def check_eviction() -> Steps[list[Finding]]:
    """Whether a full server deletes queue keys."""
    policy = yield from eviction.eviction_policy()
    if policy.name is None:
        return [unseen("eviction", "the eviction policy", policy.why)]
    if policy.deletes:
        text = f"maxmemory-policy is {policy.name}: a full server {policy.harm}"
        return [problem("eviction", text, eviction.CURE)]
    return [ok("eviction", "maxmemory-policy is noeviction: a full server refuses new jobs and deletes nothing")]


def check_persistence() -> Steps[list[Finding]]:
    """Whether jobs outlive a restart."""
    fields = yield from probe.info("persistence")
    findings = []
    if fields.get("loading") == "1":
        findings.append(warning("persistence", "the server is still loading its data", "wait until it has"))
    if fields.get("aof_last_write_status", "ok") != "ok" or fields.get("aof_last_bgrewrite_status", "ok") != "ok":
        text = "the server could not write its append-only file: it refuses writes, or jobs will not outlive a restart"
        findings.append(problem("persistence", text, "look at the server's log and at the free space of its disk"))
    if fields.get("aof_enabled") == "1":
        fsync = yield from probe.config("appendfsync")
        if fsync == "no":
            text = (
                "the append-only file is on and never synced by the server: a power cut may cost half a minute of jobs"
            )
            findings.append(warning("persistence", text, "set `appendfsync everysec`"))
        elif not findings:
            how = f", synced {'at each write' if fsync == 'always' else 'every second'}" if fsync else ""
            findings.append(ok("persistence", f"append-only file{how}"))
        return findings
    if "aof_enabled" not in fields:
        return [*findings, unseen("persistence", "whether jobs outlive a restart", "INFO persistence does not say")]
    save = yield from probe.config("save")
    lost = "every job" if save == "" else "every job since the last snapshot"
    text = f"the append-only file is off: a restart of the server loses {lost}"
    cure = "set `appendonly yes` and `appendfsync everysec` (CONFIG SET appendonly yes, and in its configuration file)"
    return [*findings, warning("persistence", text, cure)]


def check_memory() -> Steps[list[Finding]]:
    """How much room there is, and how much of it is waste."""
    fields = yield from probe.info("memory")
    used, limit = probe.number(fields, "used_memory"), probe.number(fields, "maxmemory")
    total, held = probe.number(fields, "total_system_memory"), probe.number(fields, "used_memory_rss")
    if used is None:
        return [unseen("memory", "the memory", "INFO memory does not say how much is used")]
    findings = []
    if limit:
        share = used / limit
        text = f"{share:.0%} of maxmemory is used ({_size(used)} of {_size(limit)})"
        cure = "raise `maxmemory`, or remove jobs that are done or dead"
        if share >= FULL_SHARE:
            findings.append(problem("memory", f"{text}: new jobs are refused when it is full", cure))
        elif share >= WARN_SHARE:
            findings.append(warning("memory", text, cure))
        else:
            findings.append(ok("memory", text))
    elif total and held and held / total >= WARN_SHARE:
        text = f"no maxmemory is set, and the server holds {held / total:.0%} of its machine's memory: the kernel may kill it"
        findings.append(warning("memory", text, "set `maxmemory` below what the machine has, with `noeviction`"))
    else:
        findings.append(ok("memory", f"{_size(used)} are used, no maxmemory is set"))
    ratio = probe.number(fields, "mem_fragmentation_ratio")
    if ratio is not None and ratio > FRAGMENTED and used > FRAGMENTED_FROM:
        text = f"the server holds {ratio:.1f} times the memory that its data needs (fragmentation)"
        findings.append(warning("memory", text, "set `activedefrag yes`, or restart it when that is convenient"))
    return findings


def check_clock(session: Session) -> Steps[list[Finding]]:
    """How far this machine's clock is from the server's, which decides when jobs are due."""
    before = time.time()
    (reply,) = yield (("TIME",),)
    after = time.time()
    server = int(reply[0]) + int(reply[1]) / 1_000_000
    skew = max(before - server, server - after, 0.0)
    if skew > SKEW_S:
        ahead = "behind" if server > after else "ahead of"
        text = (
            f"this machine's clock is {skew:,.0f} s {ahead} the server's: jobs fire by the server's clock, "
            "so absolute times made here are off by as much"
        )
        return [warning("clock", text, "let both machines follow NTP")]
    return [ok("clock", "this machine's clock and the server's agree")]


def check_scripts() -> Steps[list[Finding]]:
    """Whether this user may load and run scripts; what they may touch shows when queues are looked at."""
    source = "#!lua\nreturn 1"
    sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    for words, right in ((("SCRIPT", "LOAD", source), "script|load"), (("EVALSHA", sha, 0), "evalsha")):
        try:
            yield (words,)
        except BrokerRefused as error:
            if error.code == "NOPERM":
                text = f"this user lacks +{right}: whether jobs stand where their records say is not looked at"
                return [warning("scripts", text, f"check as {doctor_user()}; who enqueues or works needs +{right} too")]
            text = f"scripts cannot be {'loaded' if words[0] == 'SCRIPT' else 'run'}, and everything here is a script: {error}"
            return [problem("scripts", text, f"give this Redis user the right `+{right}` (ACL SETUSER)")]
    return [ok("scripts", "scripts may be loaded and run")]


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
