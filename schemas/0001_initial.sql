-- Schema 1. Tables are named in the singular and are ours to change by migration; people and
-- scripts read the views of views.sql (plural names). Times are integers: milliseconds since 1970
-- UTC (_ms). Foreign keys are enforced by every mmrun connection; point and lod carry none, for
-- insert speed.

CREATE TABLE schema_history (
    version        INTEGER PRIMARY KEY,
    name           TEXT    NOT NULL,                        -- of the migration
    from_version   INTEGER NOT NULL,                        -- of the file before; 0: it was new
    applied_ms     INTEGER NOT NULL,
    sqlite_version TEXT    NOT NULL
) STRICT;

CREATE TABLE sweep (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL UNIQUE,
    stage      TEXT    NOT NULL,
    search     TEXT    NOT NULL,                            -- grid, random, ...
    space      TEXT    NOT NULL,                            -- {"hidden_size":[512,768]}
    status     TEXT    NOT NULL CHECK (status IN ('queued', 'running', 'finished', 'stopped',
                                                  'failed', 'killed')),
    objective  TEXT    NOT NULL,                            -- name of the metric to minimise
    command    TEXT,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE run (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,     -- never used twice
    uid              TEXT    NOT NULL UNIQUE,               -- sortable by time, unique everywhere
    name             TEXT    NOT NULL UNIQUE,
    stage            TEXT    NOT NULL,
    status           TEXT    NOT NULL DEFAULT 'queued'
                     CHECK (status IN ('queued', 'running', 'finished', 'stopped', 'failed',
                                       'killed', 'pruned')),
    parent_id        INTEGER REFERENCES run (id) ON DELETE SET NULL,
    parent_step      INTEGER,
    sweep_id         INTEGER REFERENCES sweep (id) ON DELETE SET NULL,
    seed             INTEGER NOT NULL,                      -- 64 bits; above 2^63 it shows negative
    device           TEXT,
    dtype            TEXT,
    params_total     INTEGER NOT NULL DEFAULT 0,
    params_trainable INTEGER NOT NULL DEFAULT 0,
    steps_planned    INTEGER NOT NULL DEFAULT 0,
    created_ms       INTEGER NOT NULL,
    started_ms       INTEGER,                               -- of the first attempt
    ended_ms         INTEGER,
    error            TEXT,
    command          TEXT,
    host             TEXT    NOT NULL,
    version          TEXT,
    git_commit       TEXT,
    notes            TEXT
) STRICT;
CREATE INDEX run_by_sweep ON run (sweep_id);
CREATE INDEX run_by_parent ON run (parent_id);
CREATE INDEX run_by_status ON run (status);

-- One row per start of a process. A live process holds a kernel lock on a byte of "<db>.lock".
CREATE TABLE attempt (
    run_id       INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    number       INTEGER NOT NULL,                          -- 1, 2, ...
    from_step    INTEGER NOT NULL,                          -- 0, or the step resumed from
    host         TEXT    NOT NULL,
    boot_id      TEXT    NOT NULL,
    pid          INTEGER NOT NULL,
    pid_start    INTEGER NOT NULL,                          -- clock ticks after boot
    started_ms   INTEGER NOT NULL,
    heartbeat_ms INTEGER NOT NULL,
    ended_ms     INTEGER,
    ended        TEXT,                                      -- the status it ended with
    ring_seq     INTEGER NOT NULL DEFAULT 0,                -- metric records committed so far
    PRIMARY KEY (run_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE param (
    run_id     INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    name       TEXT    NOT NULL,
    value      TEXT    NOT NULL,                            -- canonical text
    number     REAL,                                        -- the value if it is a JSON number
    is_default INTEGER NOT NULL CHECK (is_default IN (0, 1)),
    origin     TEXT    NOT NULL,                            -- default, preset, file, command ...
    PRIMARY KEY (run_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX param_by_name ON param (name, value);

CREATE TABLE tag (
    run_id INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    tag    TEXT    NOT NULL,
    PRIMARY KEY (run_id, tag)
) STRICT, WITHOUT ROWID;

CREATE TABLE env (
    run_id  INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    attempt INTEGER NOT NULL,
    key     TEXT    NOT NULL,
    value   TEXT    NOT NULL,
    PRIMARY KEY (run_id, attempt, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE event (
    id      INTEGER PRIMARY KEY,
    run_id  INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    time_ms INTEGER NOT NULL,
    level   TEXT    NOT NULL CHECK (level IN ('debug', 'info', 'warn', 'error')),
    kind    TEXT    NOT NULL,
    message TEXT    NOT NULL
) STRICT;
CREATE INDEX event_by_run ON event (run_id, id);

CREATE TABLE metric (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- One row per curve, with its summary: finite values in last..sum, the others counted in n_bad.
CREATE TABLE series (
    id             INTEGER PRIMARY KEY,
    metric_id      INTEGER NOT NULL REFERENCES metric (id),
    run_id         INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    n              INTEGER NOT NULL DEFAULT 0,              -- points, bad ones included
    n_bad          INTEGER NOT NULL DEFAULT 0,              -- NaN or infinite
    first_bad_step INTEGER,
    first_step     INTEGER,
    last_step      INTEGER,
    last_time_ms   INTEGER,                                 -- since the run's start
    last           REAL,                                    -- value at last_step; NULL: NaN
    min            REAL,
    min_step       INTEGER,
    max            REAL,
    max_step       INTEGER,
    sum            REAL    NOT NULL DEFAULT 0,
    UNIQUE (metric_id, run_id)
) STRICT;
CREATE INDEX series_by_run ON series (run_id);

-- One row per point, clustered by curve. A NULL value is NaN; infinities are stored as such.
CREATE TABLE point (
    series_id INTEGER NOT NULL,
    step      INTEGER NOT NULL,
    time_ms   INTEGER NOT NULL,                             -- since the run's start
    value     REAL,
    PRIMARY KEY (series_id, step)
) STRICT, WITHOUT ROWID;

-- Points that a resume superseded, under the number of the attempt that did it.
CREATE TABLE point_old (
    series_id INTEGER NOT NULL,
    attempt   INTEGER NOT NULL,
    step      INTEGER NOT NULL,
    time_ms   INTEGER NOT NULL,
    value     REAL,
    PRIMARY KEY (series_id, attempt, step)
) STRICT, WITHOUT ROWID;

-- The picture at two zoom levels: level 1 has buckets of 64 steps, level 2 of 4096.
CREATE TABLE lod (
    series_id  INTEGER NOT NULL,
    level      INTEGER NOT NULL,
    bucket     INTEGER NOT NULL,                            -- floor(step / width)
    first_step INTEGER NOT NULL,
    last_step  INTEGER NOT NULL,
    time_ms    INTEGER NOT NULL,                            -- of the last point
    n          INTEGER NOT NULL,
    n_bad      INTEGER NOT NULL,
    min        REAL,
    max        REAL,
    sum        REAL    NOT NULL,
    PRIMARY KEY (series_id, level, bucket)
) STRICT, WITHOUT ROWID;

CREATE TABLE dataset (
    id     INTEGER PRIMARY KEY,
    sha256 TEXT    NOT NULL UNIQUE,
    path   TEXT    NOT NULL,
    source TEXT,
    bytes  INTEGER NOT NULL,
    rows   INTEGER NOT NULL,
    tokens INTEGER NOT NULL
) STRICT;

CREATE TABLE run_dataset (
    run_id     INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    dataset_id INTEGER NOT NULL REFERENCES dataset (id),
    role       TEXT    NOT NULL,
    PRIMARY KEY (run_id, dataset_id, role)
) STRICT, WITHOUT ROWID;
CREATE INDEX run_dataset_by_dataset ON run_dataset (dataset_id);

CREATE TABLE tokenizer (
    hash       TEXT    NOT NULL PRIMARY KEY,
    json       TEXT    NOT NULL,
    config     TEXT,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE generation (
    id            INTEGER PRIMARY KEY,
    run_id        INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    step          INTEGER NOT NULL,
    prompt_idx    INTEGER NOT NULL,
    prompt        TEXT    NOT NULL,
    text          TEXT    NOT NULL,
    tokens        INTEGER NOT NULL,
    finish_reason TEXT,
    temperature   REAL,
    top_p         REAL,
    top_k         INTEGER,
    seed          INTEGER NOT NULL,
    tokens_per_s  REAL,
    created_ms    INTEGER NOT NULL,
    superseded_by INTEGER                                   -- attempt that rewound past it
) STRICT;
CREATE INDEX generation_by_run ON generation (run_id, step, prompt_idx);

-- Visible only as 'complete'. 'writing' and 'removing' rows without a living owner are collected.
CREATE TABLE checkpoint (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id       INTEGER NOT NULL REFERENCES run (id),
    step         INTEGER NOT NULL,
    kind         TEXT    NOT NULL CHECK (kind IN ('full', 'weights')),
    state        TEXT    NOT NULL CHECK (state IN ('writing', 'complete', 'removing')),
    details      TEXT,                                      -- JSON: data position, tokens, ...
    sha256       TEXT,                                      -- of the manifest
    raw_bytes    INTEGER NOT NULL DEFAULT 0,
    stored_bytes INTEGER NOT NULL DEFAULT 0,
    val_loss     REAL,
    is_final     INTEGER NOT NULL DEFAULT 0,
    created_ms   INTEGER NOT NULL
) STRICT;
CREATE INDEX checkpoint_by_run ON checkpoint (run_id, step);

CREATE TABLE tensor (
    checkpoint_id INTEGER NOT NULL REFERENCES checkpoint (id),
    idx           INTEGER NOT NULL,                         -- order in the manifest
    name          TEXT    NOT NULL,
    dtype         TEXT    NOT NULL,
    element_bytes INTEGER NOT NULL,
    shape         TEXT    NOT NULL,                         -- JSON array
    bytes         INTEGER NOT NULL,
    sha256        BLOB    NOT NULL,                         -- of the digests of its chunks
    PRIMARY KEY (checkpoint_id, idx),
    UNIQUE (checkpoint_id, name)
) STRICT, WITHOUT ROWID;

-- Content-addressed pieces of at most 1 MiB. codec: 0 as it is; else the element size whose byte
-- planes were split before zstd.
CREATE TABLE chunk (
    id           INTEGER PRIMARY KEY,
    sha256       BLOB    NOT NULL UNIQUE CHECK (length(sha256) = 32),  -- of the raw bytes
    codec        INTEGER NOT NULL,
    raw_bytes    INTEGER NOT NULL CHECK (raw_bytes BETWEEN 0 AND 1048576),
    stored_bytes INTEGER NOT NULL,
    data         BLOB    NOT NULL
) STRICT;

CREATE TABLE tensor_chunk (
    checkpoint_id INTEGER NOT NULL REFERENCES checkpoint (id),
    idx           INTEGER NOT NULL,                         -- of the tensor
    seq           INTEGER NOT NULL,
    chunk_id      INTEGER NOT NULL REFERENCES chunk (id) DEFERRABLE INITIALLY DEFERRED,
    PRIMARY KEY (checkpoint_id, idx, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX tensor_chunk_by_chunk ON tensor_chunk (chunk_id);
