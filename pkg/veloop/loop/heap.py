"""The timer heap's operations: heapq's, where that is C.

Elsewhere (PyPy) heapq is Python, too, and compares entries as tuples. Where their numbers are
compared, as here, the JIT compiler makes it take two thirds of the time.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable
from typing import Any, TypeVar

Entry = TypeVar("Entry", bound=tuple[float, int, object])  # when, in which order they were made


def push(heap: list[Entry], entry: Entry) -> None:
    """heapq.heappush()."""
    at = len(heap)
    heap.append(entry)
    when, order, _ = entry
    while at:
        parent = (at - 1) >> 1
        other = heap[parent]
        if other[0] < when or (other[0] == when and other[1] < order):
            break
        heap[at] = other
        at = parent
    heap[at] = entry


def pop(heap: list[Entry]) -> Entry:
    """heapq.heappop()."""
    last = heap.pop()
    size = len(heap)
    if not size:
        return last
    first = heap[0]
    when, order, _ = last
    at, child = 0, 1
    while child < size:
        entry = heap[child]
        right = child + 1
        if right < size:
            other = heap[right]
            if other[0] < entry[0] or (other[0] == entry[0] and other[1] < entry[1]):
                entry, child = other, right
        if when < entry[0] or (when == entry[0] and order < entry[1]):
            break
        heap[at] = entry
        at, child = child, 2 * child + 1
    heap[at] = last
    return first


heapify = heapq.heapify
_IS_C = sys.implementation.name == "cpython"
heappush: Callable[[list[Any], Any], None] = heapq.heappush if _IS_C else push
heappop: Callable[[list[Any]], Any] = heapq.heappop if _IS_C else pop
