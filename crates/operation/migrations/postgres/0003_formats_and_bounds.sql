-- What versions of Landfall have to know of one another, what the bounds look at, and the time that retention counts.

-- The format of what is stored of a task (payload, outcome, log) and of a deployment. A version leaves alone what is newer
-- than what it reads.
ALTER TABLE task ADD COLUMN format BIGINT NOT NULL DEFAULT 1;
ALTER TABLE deployment ADD COLUMN format BIGINT NOT NULL DEFAULT 1;

-- The line in which a task waits: `targets` where those are short, else a hash of them.
ALTER TABLE task ADD COLUMN place TEXT COLLATE "C" NOT NULL DEFAULT '';
-- How large the payload is.
ALTER TABLE task ADD COLUMN bytes BIGINT NOT NULL DEFAULT 0;
-- When it finished, by the time in `clock`; NULL for those that finished before there was one.
ALTER TABLE task ADD COLUMN kept_from BIGINT;
UPDATE task SET place = CASE WHEN length(targets) <= 200 THEN targets ELSE '' END,
    bytes = coalesce(octet_length(payload), 0) WHERE finished_at IS NULL;

-- Time that passed while a process ran, in microseconds; it began as the time of day. A time of day that jumps moves it by
-- little, and while all processes are down it stands still.
CREATE TABLE clock (
    one          BIGINT  PRIMARY KEY CHECK (one = 1),
    elapsed      BIGINT  NOT NULL,
    seen_at      BIGINT  NOT NULL                -- when it was last moved on, by this server's clock
);
INSERT INTO clock (one, elapsed, seen_at)
    SELECT 1, least(now, coalesce(latest, now)), now FROM (
        SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now,
               (SELECT max(greatest(submitted_at, coalesce(finished_at, 0))) FROM task) AS latest) AS times;

CREATE INDEX task_place ON task (lane, place, seq) WHERE state = 'queued' AND blocked = 0;
DROP INDEX task_queued;
CREATE INDEX task_queued ON task (lane, bytes) WHERE state = 'queued';
DROP INDEX task_finished;
CREATE INDEX task_finished ON task ((coalesce(kept_from, finished_at)), seq) WHERE finished_at IS NOT NULL;
