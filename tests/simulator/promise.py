"""What a run says when it broke a promise."""


class Violation(AssertionError):
    """A promise that was broken."""


def must(holds: object, text: str) -> None:
    """Raise Violation with this text unless it holds."""
    if not holds:
        raise Violation(text)
