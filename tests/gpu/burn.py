"""A load on the GPU that is known: holds so many bytes, and multiplies matrices while it is told to.

    python -m tests.gpu.burn BYTES

Prints `READY`. Each line on standard input is an order, answered by a line: `work` multiplies until `rest`; the end of
the input ends it.
"""

from __future__ import annotations

import sys
import threading


def main() -> None:
    """Allocate, then work and rest as told."""
    import torch  # noqa: PLC0415 - there only where a GPU is

    held = torch.empty(int(sys.argv[1]), dtype=torch.uint8, device="cuda")
    left, right = (torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    product = torch.empty_like(left)
    torch.matmul(left, right, out=product)
    torch.cuda.synchronize()
    print("READY", held.numel(), flush=True)  # noqa: T201 - for who started it

    working = threading.Event()

    def work() -> None:
        while True:
            working.wait()
            for _ in range(10):
                torch.matmul(left, right, out=product)
            torch.cuda.synchronize()

    threading.Thread(target=work, daemon=True).start()
    for order in sys.stdin:
        working.set() if order.strip() == "work" else working.clear()
        print(order.strip(), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
