"""Count the words of standard input and print the most frequent ones, one a line."""

import re
import sys
from collections import Counter

from rich.console import Console


def words(text: str) -> Counter[str]:
    """How often each word occurs, in lower case."""
    return Counter(re.findall(r"\w+", text.lower()))


if __name__ == "__main__":
    console = Console(highlight=False)
    for word, count in words(sys.stdin.read()).most_common(10):
        console.print(f"{word:12} {count}", markup=False)
