"""With which of its two kernels onnxruntime computes the attention of a fused graph on CPUs.

A variable of the environment decides when a session is made; neither an option of the session nor the
operator does (1.32). The plain kernel takes a call's tokens x the cache's tokens floats for each head, flash
attention a block of them.
"""

import os

SWITCH = "ORT_GQA_DISABLE_FLASH_ATTENTION"
# Tokens of a text that is read at once, or as many scores of a head: 512 at once up to a cache of 8,192.
# Milliseconds a layer of 9 heads of 64, plain and flash: on a CPU with AMX and 2 threads 442 tokens 4.5 and
# 9.4, 2,000 at once 91 and 110; on one without and 1 thread 442 tokens 2.6 and 3.3, 512 after 1,536 14.1 and
# 14.6, 512 after 7,680 54 and 58, but 2,000 at once 54 and 36; a token after 2,000 0.15 and 0.20.
PLAIN_UP_TO = 2048
_WANTED = os.environ.get(SWITCH)  # by who knows better


def choose_attention(scores: int) -> str:
    """Have sessions that are made from now on use what is faster for calls of at most so many scores of a
    head: tokens of all texts in the call times those that the cache holds. What the switch is set to."""
    os.environ[SWITCH] = _WANTED or str(int(scores <= PLAIN_UP_TO**2))
    return os.environ[SWITCH]
