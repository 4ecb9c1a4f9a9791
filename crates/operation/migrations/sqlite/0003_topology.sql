-- Where things may be placed, as operators say it while the service runs.

CREATE TABLE instance (
    id           INTEGER PRIMARY KEY,            -- never given again: none is ever deleted
    code_key     TEXT    NOT NULL UNIQUE,        -- the code in the form in which codes are compared
    attributes   TEXT    NOT NULL                -- JSON
) STRICT;

-- Goes up with every change of an instance, so that a copy of them all can be told from what they are now.
CREATE TABLE topology (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    revision     INTEGER NOT NULL
) STRICT;
INSERT INTO topology (one, revision) VALUES (1, 0);

-- The configured targets that an instance was made of once; what became of it since is the operators'.
CREATE TABLE seeded_target (
    code_key     TEXT    PRIMARY KEY
) STRICT, WITHOUT ROWID;
