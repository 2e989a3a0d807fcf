"""Imported only by the server that forks workers: makes it survive the signals that stop workers.

SLURM signals every process of a job, but the server must stay alive to report how workers exit, and to wait until they
have saved their runs. Signals are blocked here; a worker unblocks them after it has set its own handlers.
"""

import signal

from dg_batchformer.runtime.allocator import keep_from_children

keep_from_children()
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))
