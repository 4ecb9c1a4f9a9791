-- What versions of Landfall have to know of one another, what the bounds look at, and the time that retention counts.

-- The format of what is stored of a task (payload, outcome, log) and of a deployment. A version leaves alone what is newer
-- than what it reads.
ALTER TABLE task ADD COLUMN format INTEGER NOT NULL DEFAULT 1;
ALTER TABLE deployment ADD COLUMN format INTEGER NOT NULL DEFAULT 1;

-- The line in which a task waits: `targets` where those are short, else a hash of them.
ALTER TABLE task ADD COLUMN place TEXT NOT NULL DEFAULT '';
-- How large the payload is.
ALTER TABLE task ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
-- When it finished, by the time in `clock`; NULL for those that finished before there was one.
ALTER TABLE task ADD COLUMN kept_from INTEGER;
UPDATE task SET place = CASE WHEN length(targets) <= 200 THEN targets ELSE '' END,
    bytes = coalesce(length(CAST(payload AS BLOB)), 0) WHERE finished_at IS NULL;

-- Time that passed while a process ran, in microseconds; it began as the time of day. A time of day that jumps moves it by
-- little, and a process that is down not at all.
CREATE TABLE clock (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    elapsed      INTEGER NOT NULL,
    seen_at      INTEGER NOT NULL                -- when it was last moved on, by the clock of run_at
) STRICT;
INSERT INTO clock (one, elapsed, seen_at)
    SELECT 1, min(now, coalesce(latest, now)), now FROM (
        SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER) AS now,
               (SELECT max(max(submitted_at, coalesce(finished_at, 0))) FROM task) AS latest);

DROP INDEX task_claimable;
CREATE INDEX task_claimable ON task (lane, seq, run_at, crashes, operation, format)
    WHERE state = 'queued' AND blocked = 0;
CREATE INDEX task_place ON task (lane, place, seq, run_at, crashes, operation, format)
    WHERE state = 'queued' AND blocked = 0;
CREATE INDEX task_due ON task (lane, run_at) WHERE state = 'queued' AND blocked = 0;
DROP INDEX task_queued;
CREATE INDEX task_queued ON task (lane, bytes) WHERE state = 'queued';
DROP INDEX task_finished;
CREATE INDEX task_finished ON task (coalesce(kept_from, finished_at), seq) WHERE finished_at IS NOT NULL;
