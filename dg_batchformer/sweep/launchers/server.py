"""Imported only by the server that forks workers: makes it survive the signals that stop workers.

SLURM signals every process of a job, and Ctrl-C every process of a terminal or notebook, but the server must stay
alive to report how workers exit, and to wait until they have saved their runs. Python ignores SIGINT in this server
only after it has imported this module, so it is ignored here already. A worker sets its handlers, then unblocks the
other signals.
"""

import signal

from dg_batchformer.runtime.allocator import keep_from_children

keep_from_children()
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))
