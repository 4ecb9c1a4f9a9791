-- Tasks, their logs, and what is remembered of components. Times are microseconds since 1970 (UTC).

CREATE TABLE task (
    -- The order of submission. AUTOINCREMENT: a number is never given twice, not even after a deletion.
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT    NOT NULL UNIQUE,
    operation    TEXT    NOT NULL,
    lane         TEXT    NOT NULL,
    components   TEXT    NOT NULL,               -- JSON, for display; task_component is what the queue looks at
    fingerprint  TEXT    NOT NULL,
    -- Set while a repeated request may still join this task: until it ends, is asked to stop, or another request
    -- for one of its components comes after it.
    dedupe_key   TEXT,
    state        TEXT    NOT NULL
                 CHECK (state IN ('queued', 'running', 'stopping', 'completed', 'failed', 'terminated')),
    -- Whether an earlier unfinished task shares a component with a queued one.
    blocked      INTEGER NOT NULL DEFAULT 0 CHECK (blocked IN (0, 1)),
    payload      TEXT,                           -- JSON; dropped at the end
    attempt      INTEGER NOT NULL DEFAULT 0,
    crashes      INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL,
    run_at       INTEGER NOT NULL,
    lease_owner  TEXT,
    lease_epoch  INTEGER NOT NULL DEFAULT 0,
    lease_until  INTEGER,
    log_lines    INTEGER NOT NULL DEFAULT 0,     -- lines that count against the limit
    outcome      TEXT,                           -- JSON
    reason       TEXT,
    submitted_at INTEGER NOT NULL,
    started_at   INTEGER,
    finished_at  INTEGER,
    CHECK ((state IN ('running', 'stopping')) = (lease_until IS NOT NULL)),
    CHECK ((state IN ('completed', 'failed', 'terminated')) = (finished_at IS NOT NULL)),
    CHECK (finished_at IS NULL OR (dedupe_key IS NULL AND payload IS NULL)),
    CHECK (blocked = 0 OR state = 'queued')
) STRICT;

-- Every index but the one on id is partial: what they hold is unfinished work, however much is retained.
CREATE UNIQUE INDEX task_in_flight ON task (dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE INDEX task_claimable ON task (lane, seq, run_at, crashes) WHERE state = 'queued' AND blocked = 0;
CREATE INDEX task_suspect ON task (seq, run_at) WHERE state = 'queued' AND blocked = 0 AND crashes >= 2;
CREATE INDEX task_queued ON task (seq) WHERE state = 'queued';
CREATE INDEX task_leased ON task (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX task_finished ON task (finished_at, seq) WHERE finished_at IS NOT NULL;

-- What unfinished tasks have, or wait to have, to themselves.
CREATE TABLE task_component (
    component    TEXT    NOT NULL,
    environment  TEXT    NOT NULL,
    task_seq     INTEGER NOT NULL REFERENCES task (seq) ON DELETE CASCADE,
    PRIMARY KEY (component, environment, task_seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_component_task ON task_component (task_seq);

-- What leased tasks have. Its key is the last defence against two of them on one component.
CREATE TABLE running_component (
    component    TEXT    NOT NULL,
    environment  TEXT    NOT NULL,
    task_seq     INTEGER NOT NULL REFERENCES task (seq) ON DELETE CASCADE,
    PRIMARY KEY (component, environment)
) STRICT, WITHOUT ROWID;
CREATE INDEX running_component_task ON running_component (task_seq);

CREATE TABLE task_log (
    task_seq     INTEGER NOT NULL REFERENCES task (seq) ON DELETE CASCADE,
    line         INTEGER NOT NULL,
    at           INTEGER NOT NULL,
    level        TEXT    NOT NULL,
    phase        TEXT,
    message      TEXT    NOT NULL,
    PRIMARY KEY (task_seq, line)
) STRICT, WITHOUT ROWID;

CREATE TABLE deployment (
    component    TEXT    NOT NULL,
    environment  TEXT    NOT NULL,
    target       TEXT    NOT NULL,
    status       TEXT    NOT NULL CHECK (status IN ('provisioned', 'unprovisioned')),
    access       TEXT,                           -- JSON
    specific     TEXT    NOT NULL,               -- JSON
    updated_at   INTEGER NOT NULL,
    PRIMARY KEY (component, environment)
) STRICT, WITHOUT ROWID;
