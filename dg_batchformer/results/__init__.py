"""Read the records of sweeps, ours and DomainBed's; metrics and model selection.

From a line of ``results.jsonl`` to a table:

* a record is one line, a dict;
* ``Evaluations`` are the numbers of a run's records, in columns;
* ``RunRecords`` are these, with the values that all records of the run repeat;
* ``RecordsFile`` is a parsed file, which may hold two runs and unreadable lines;
* ``CollectedRun`` is a run of a sweep with its row, its state and its records;
* ``Score`` is the result of model selection for one row, environment and trial;
* ``tables.table.Cell`` is the mean of scores over trials.
"""
