"""Write `orders.jsonl` anew: the orders of the demo, made up from a seed, the same every time.

python examples/make_orders.py
"""

from __future__ import annotations

from pathlib import Path

from zwheel.cli.demo.orders import make_orders, to_jsonl

TARGET = Path(__file__).with_name("orders.jsonl")


def main() -> None:
    orders = make_orders()
    TARGET.write_text(to_jsonl(orders), encoding="utf-8", newline="\n")
    print(f"{len(orders):,} orders in {TARGET.name}")


if __name__ == "__main__":
    main()
