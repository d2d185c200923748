-- Schema 2. Outcomes of evaluations; answers to verifiable prompts; what a checkpoint costs by
-- itself, now that it may refer to the arrays of another one.

CREATE TABLE result (
    id            INTEGER PRIMARY KEY,
    run_id        INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    step          INTEGER NOT NULL,
    task          TEXT    NOT NULL,                         -- name of the file
    metric        TEXT    NOT NULL,                         -- val_loss, exact_match, ...
    value         REAL,                                     -- NULL: NaN
    low           REAL,                                     -- 95 % interval of a share
    high          REAL,
    n             INTEGER NOT NULL,                         -- tokens, questions, prompts
    correct       INTEGER,                                  -- of a share
    data_sha256   TEXT,                                     -- of the file
    created_ms    INTEGER NOT NULL,
    superseded_by INTEGER                                   -- attempt that rewound past it
) STRICT;
CREATE INDEX result_by_run ON result (run_id, step);

ALTER TABLE generation ADD COLUMN task TEXT;                -- file of prompts; NULL: the run's own
ALTER TABLE generation ADD COLUMN expected TEXT;            -- NULL: not verifiable
ALTER TABLE generation ADD COLUMN is_correct INTEGER CHECK (is_correct IN (0, 1));

-- Of all checkpoints that refer to a chunk, the one with the smallest id owns it.
ALTER TABLE checkpoint ADD COLUMN own_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE checkpoint
   SET own_bytes = (SELECT coalesce(sum(c.stored_bytes), 0)
                      FROM chunk c
                     WHERE c.id IN (SELECT t.chunk_id FROM tensor_chunk t
                                     WHERE t.checkpoint_id = checkpoint.id)
                       AND NOT EXISTS (SELECT 1
                                         FROM tensor_chunk e
                                         JOIN checkpoint k ON k.id = e.checkpoint_id
                                        WHERE e.chunk_id = c.id
                                          AND k.id < checkpoint.id
                                          AND k.state <> 'writing'))
 WHERE state <> 'writing';
