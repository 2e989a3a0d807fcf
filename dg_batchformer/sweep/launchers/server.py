"""Imported by the server that workers are forked from, and by nobody else: it outlives what stops workers.

SLURM signals every process of a job. A server that ended with its workers could not say how they ended, nor wait until
they have saved their runs. Blocked signals wait: a worker lets them in once it has handlers of its own.
"""

import signal

from dg_batchformer.runtime.allocator import keep_from_children

keep_from_children()
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))
