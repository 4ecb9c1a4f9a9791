-- Where the work of a task happens, and when it first began.

ALTER TABLE task ADD COLUMN targets TEXT NOT NULL DEFAULT '[]';   -- JSON: codes of targets, sorted
ALTER TABLE task ADD COLUMN begun_at INTEGER;                     -- the first run's start, by the clock of run_at
