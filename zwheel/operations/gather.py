"""Several operations side by side: what they ask for at a time goes out in one round trip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from zwheel.broker.store import Apart, Ask, Commands, Steps
from zwheel.errors import BrokerError, BrokerUnavailable, OutcomeUnknown

T = TypeVar("T")


def gather(operations: Sequence[Steps[T]]) -> Steps[list[T]]:
    """Carry operations through side by side, each to its own end; their results in order. They may not wait for a receipt.

    An error is for the operation that asked. Raises, when all have ended: what one of them raised, OutcomeUnknown first.
    """
    results: dict[int, T] = {}
    errors: list[BaseException] = []
    asks: dict[int, Ask] = {}

    def go_on(number: int, resume: Callable[[], Ask]) -> None:
        asks.pop(number, None)
        try:
            asks[number] = resume()
        except StopIteration as end:
            results[number] = end.value
        except Exception as error:
            errors.append(error)

    try:
        for number, steps in enumerate(operations):
            go_on(number, steps.__next__)
        while asks:
            sent = {number: ask for number, ask in asks.items() if not isinstance(ask, (int, float))}
            if not sent:
                yield max(ask for ask in asks.values() if isinstance(ask, (int, float)))
                for number in list(asks):
                    go_on(number, partial(operations[number].send, []))
                continue
            try:
                replies = yield Apart(command for commands in sent.values() for command in commands)
            except BrokerError as error:
                for number in sent:
                    go_on(number, partial(operations[number].throw, error))
                continue
            for number, commands in sent.items():
                part, replies = replies[: len(commands)], replies[len(commands) :]
                steps, refused = operations[number], _error(commands, part)
                go_on(number, partial(steps.send, part) if refused is None else partial(steps.throw, refused))
    finally:
        for steps in operations:
            steps.close()
    if errors:
        raise next((error for error in errors if isinstance(error, OutcomeUnknown)), errors[0])
    return [results[number] for number in range(len(operations))]


def _error(commands: Commands, replies: Sequence[object]) -> BrokerError | None:
    """What an operation is told whose commands were not all answered."""
    if isinstance(commands, Apart):
        return None
    found = [reply for reply in replies if isinstance(reply, BrokerError)]
    if not found:
        return None
    if len(found) < len(replies) and isinstance(found[0], BrokerUnavailable):
        return OutcomeUnknown(f"{found[0]}; other commands of the request were carried out")
    return next((error for error in found if isinstance(error, OutcomeUnknown)), found[0])
