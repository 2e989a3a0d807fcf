"""Imported by the server that workers are forked from, and by nobody else: it outlives what stops workers.

SLURM signals every process of a job. A server that ended with its workers could not say how they ended, nor wait until
they have saved their runs. Workers set handlers of their own.
"""

import signal

for _number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(_number, signal.SIG_IGN)
