-- Tasks, their logs, and what is remembered of components. Times are microseconds since 1970 (UTC), told by this
-- server's clock; `operation_overview` shows them as times of day.

CREATE TABLE task (
    -- The order of submission.
    seq          BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id           TEXT    COLLATE "C" NOT NULL UNIQUE,
    operation    TEXT    NOT NULL,
    lane         TEXT    COLLATE "C" NOT NULL,
    components   TEXT    NOT NULL,               -- JSON, for display; task_component is what the queue looks at
    targets      TEXT    NOT NULL,               -- JSON: codes of targets, sorted
    fingerprint  TEXT    NOT NULL,
    -- Set while a repeated request may still join this task: until it ends, is asked to stop, or another request
    -- for one of its components comes after it.
    dedupe_key   TEXT    COLLATE "C",
    state        TEXT    COLLATE "C" NOT NULL
                 CHECK (state IN ('queued', 'running', 'stopping', 'completed', 'failed', 'terminated')),
    -- Whether an earlier unfinished task shares a component with a queued one.
    blocked      BIGINT  NOT NULL DEFAULT 0 CHECK (blocked IN (0, 1)),
    payload      TEXT,                           -- JSON; dropped at the end
    attempt      BIGINT  NOT NULL DEFAULT 0,
    crashes      BIGINT  NOT NULL DEFAULT 0,
    max_attempts BIGINT  NOT NULL,
    run_at       BIGINT  NOT NULL,
    begun_at     BIGINT,                         -- the first run's start
    lease_owner  TEXT,
    lease_epoch  BIGINT  NOT NULL DEFAULT 0,
    lease_until  BIGINT,
    log_lines    BIGINT  NOT NULL DEFAULT 0,     -- lines that count against the limit
    outcome      TEXT,                           -- JSON
    reason       TEXT,
    submitted_at BIGINT  NOT NULL,
    started_at   BIGINT,
    finished_at  BIGINT,
    CHECK ((state IN ('running', 'stopping')) = (lease_until IS NOT NULL)),
    CHECK ((state IN ('completed', 'failed', 'terminated')) = (finished_at IS NOT NULL)),
    CHECK (finished_at IS NULL OR (dedupe_key IS NULL AND payload IS NULL)),
    CHECK (blocked = 0 OR state = 'queued')
);

-- Every index but the keys is partial: what they hold is unfinished work, however much is retained.
CREATE UNIQUE INDEX task_in_flight ON task (dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE INDEX task_claimable ON task (lane, seq) WHERE state = 'queued' AND blocked = 0;
CREATE INDEX task_suspect ON task (seq) WHERE state = 'queued' AND blocked = 0 AND crashes >= 2;
CREATE INDEX task_due ON task (lane, run_at) WHERE state = 'queued' AND blocked = 0;
CREATE INDEX task_queued ON task (seq) WHERE state = 'queued';
CREATE INDEX task_leased ON task (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX task_finished ON task (finished_at, seq) WHERE finished_at IS NOT NULL;

-- What unfinished tasks have, or wait to have, to themselves.
CREATE TABLE task_component (
    component    TEXT    COLLATE "C" NOT NULL,
    environment  TEXT    COLLATE "C" NOT NULL,
    task_seq     BIGINT  NOT NULL REFERENCES task (seq) ON DELETE CASCADE,
    PRIMARY KEY (component, environment, task_seq)
);
CREATE INDEX task_component_task ON task_component (task_seq);

-- What leased tasks have. Its key is the last defence against two of them on one component.
CREATE TABLE running_component (
    component    TEXT    COLLATE "C" NOT NULL,
    environment  TEXT    COLLATE "C" NOT NULL,
    task_seq     BIGINT  NOT NULL REFERENCES task (seq) ON DELETE CASCADE,
    PRIMARY KEY (component, environment)
);
CREATE INDEX running_component_task ON running_component (task_seq);

CREATE TABLE task_log (
    task_seq     BIGINT  NOT NULL REFERENCES task (seq) ON DELETE CASCADE,
    line         BIGINT  NOT NULL,
    at           BIGINT  NOT NULL,
    level        TEXT    NOT NULL,
    phase        TEXT,
    message      TEXT    NOT NULL,
    PRIMARY KEY (task_seq, line)
);

CREATE TABLE deployment (
    component    TEXT    COLLATE "C" NOT NULL,
    environment  TEXT    COLLATE "C" NOT NULL,
    target       TEXT    NOT NULL,
    status       TEXT    NOT NULL CHECK (status IN ('provisioned', 'unprovisioned')),
    access       TEXT,                           -- JSON
    specific     TEXT    NOT NULL,               -- JSON
    updated_at   BIGINT  NOT NULL,
    PRIMARY KEY (component, environment)
);

-- These rows change several times and stay for long: what is left behind must go early, not when a fifth of all that
-- is retained has changed.
ALTER TABLE task SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000,
                      autovacuum_analyze_scale_factor = 0.0, autovacuum_analyze_threshold = 5000);
ALTER TABLE task_component SET (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 2000);
ALTER TABLE running_component SET (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 2000);

-- For people: the queue at a glance. No payloads, no outcomes.
CREATE VIEW operation_overview AS
    SELECT id AS token, operation, state, blocked = 1 AS waits_for_earlier, components, targets, attempt, max_attempts,
           crashes, to_timestamp(submitted_at / 1e6) AS submitted_at, to_timestamp(started_at / 1e6) AS started_at,
           to_timestamp(finished_at / 1e6) AS finished_at,
           CASE WHEN state = 'queued' THEN to_timestamp(run_at / 1e6) END AS runs_not_before,
           lease_owner, to_timestamp(lease_until / 1e6) AS lease_until, reason
    FROM task;
