"""What producers hold: wheels, their tasks, and the jobs and schedules made from them.

The public names are in `zwheel` itself: `Wheel` and `Task` (wheel), `SyncWheel` and `SyncTask` (sync). Both share the
registry of tasks; connection is how an async wheel reaches Redis. Workers use `BaseTask` (tasks) and functions.
"""
