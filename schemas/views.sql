-- The stable interface for people, scripts and other programs. Columns are only ever added.
-- Every view is dropped and made again by each migration. Times are UTC, ISO 8601, to the
-- millisecond.

-- Not part of the interface: run with its derived numbers, times as integers. `runs` formats it.
CREATE VIEW run_summary AS
SELECT r.id,
       r.name,
       r.stage,
       r.status,
       r.parent_id,
       r.parent_step,
       r.sweep_id,
       r.seed,
       r.device,
       r.dtype,
       r.params_total,
       r.params_trainable,
       coalesce((SELECT max(s.last_step) FROM series s WHERE s.run_id = r.id), 0) AS steps,
       r.steps_planned,
       (SELECT s.last FROM series s
         WHERE s.run_id = r.id
           AND s.metric_id = (SELECT id FROM metric WHERE name = 'tokens')) AS tokens,
       (SELECT s.last FROM series s
         WHERE s.run_id = r.id
           AND s.metric_id = (SELECT id FROM metric WHERE name = 'loss')) AS final_loss,
       (SELECT s.min FROM series s
         WHERE s.run_id = r.id
           AND s.metric_id = (SELECT id FROM metric WHERE name = 'val_loss')) AS best_val_loss,
       (SELECT s.sum / (s.n - s.n_bad) FROM series s
         WHERE s.run_id = r.id AND s.n > s.n_bad
           AND s.metric_id = (SELECT id FROM metric WHERE name = 'tokens_per_s')) AS tokens_per_s,
       r.created_ms,
       r.started_ms,
       r.ended_ms,
       (SELECT sum(coalesce(a.ended_ms, a.heartbeat_ms) - a.started_ms) / 1000.0
          FROM attempt a WHERE a.run_id = r.id) AS duration_s,
       r.error,
       r.command,
       r.host,
       r.version,
       r.git_commit,
       r.notes,
       (SELECT group_concat(t.tag, ',') FROM tag t WHERE t.run_id = r.id) AS tags,
       (SELECT max(a.heartbeat_ms) FROM attempt a WHERE a.run_id = r.id) AS heartbeat_ms,
       (SELECT count(*) FROM attempt a WHERE a.run_id = r.id) AS attempts
  FROM run r;

-- A live run beats every 5 s. One that says 'running' but has been silent for a minute reads
-- 'killed' here; mmrun's own commands know it at once, from the lock that the kernel frees, and the
-- next one that writes stores it.
CREATE VIEW runs AS
SELECT id,
       name,
       stage,
       CASE WHEN status = 'running'
             AND (julianday('now') - 2440587.5) * 86400.0 - heartbeat_ms / 1000.0 > 60
            THEN 'killed' ELSE status END AS status,
       parent_id,
       parent_step,
       sweep_id,
       seed,
       device,
       dtype,
       params_total,
       params_trainable,
       steps,
       CAST(tokens AS INTEGER) AS tokens,
       CASE WHEN abs(final_loss) < 9e999 THEN final_loss END AS final_loss,
       best_val_loss,
       tokens_per_s,
       strftime('%Y-%m-%dT%H:%M:%fZ', created_ms / 1000.0, 'unixepoch') AS created_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', started_ms / 1000.0, 'unixepoch') AS started_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', ended_ms / 1000.0, 'unixepoch') AS ended_at,
       duration_s,
       error,
       command,
       host,
       version,
       git_commit,
       notes,
       steps_planned,
       tags,
       attempts,
       strftime('%Y-%m-%dT%H:%M:%fZ', heartbeat_ms / 1000.0, 'unixepoch') AS heartbeat_at,
       CASE WHEN status = 'running'
            THEN round((julianday('now') - 2440587.5) * 86400.0 - heartbeat_ms / 1000.0, 1)
            END AS heartbeat_age_s
  FROM run_summary;

CREATE VIEW params AS
SELECT run_id,
       name,
       value,
       is_default,
       origin,
       number
  FROM param;

-- value is NULL where it is not finite, so that avg() and max() stay meaningful; flag then says
-- 'nan', '+inf' or '-inf'. The order of the joins keeps every query off a scan of all points.
CREATE VIEW metrics AS
SELECT s.run_id,
       p.step,
       m.name,
       CASE WHEN abs(p.value) < 9e999 THEN p.value END AS value,
       CASE WHEN p.value IS NULL THEN 'nan'
            WHEN p.value = 9e999 THEN '+inf'
            WHEN p.value = -9e999 THEN '-inf' END AS flag,
       strftime('%Y-%m-%dT%H:%M:%fZ', (r.started_ms + p.time_ms) / 1000.0, 'unixepoch') AS time
  FROM metric m
 CROSS JOIN series s ON s.metric_id = m.id
 CROSS JOIN run r ON r.id = s.run_id
 CROSS JOIN point p ON p.series_id = s.id;

-- Last, least and greatest value of each curve, without touching a point.
CREATE VIEW metric_last AS
SELECT s.run_id,
       m.name,
       s.last_step AS step,
       CASE WHEN abs(s.last) < 9e999 THEN s.last END AS value,
       CASE WHEN s.last IS NULL THEN 'nan'
            WHEN s.last = 9e999 THEN '+inf'
            WHEN s.last = -9e999 THEN '-inf' END AS flag,
       s.n,
       s.n_bad,
       s.first_bad_step,
       s.min,
       s.min_step,
       s.max,
       s.max_step,
       CASE WHEN s.n > s.n_bad THEN s.sum / (s.n - s.n_bad) END AS mean
  FROM metric m
 CROSS JOIN series s ON s.metric_id = m.id
 WHERE s.n > 0;

-- stored_bytes is the compressed size of all chunks that the checkpoint refers to, own_bytes of
-- those it owns: of all checkpoints that refer to a chunk, the one with the smallest id owns it.
-- When that one is removed, the chunk and its bytes go to the next. So the sum of own_bytes over
-- all checkpoints is what they take together, and a frozen base is counted once.
CREATE VIEW checkpoints AS
SELECT c.id,
       c.run_id,
       c.step,
       c.kind,
       c.raw_bytes,
       c.stored_bytes,
       c.sha256,
       strftime('%Y-%m-%dT%H:%M:%fZ', c.created_ms / 1000.0, 'unixepoch') AS created_at,
       c.val_loss,
       c.is_final,
       c.id IS (SELECT b.id FROM checkpoint b
                 WHERE b.run_id = c.run_id AND b.state = 'complete' AND b.val_loss IS NOT NULL
                 ORDER BY b.val_loss, b.step, b.id LIMIT 1) AS is_best,
       (SELECT count(*) FROM tensor t WHERE t.checkpoint_id = c.id) AS tensors,
       c.details,
       c.own_bytes
  FROM checkpoint c
 WHERE c.state = 'complete';

CREATE VIEW generations AS
SELECT id,
       run_id,
       step,
       prompt_idx,
       prompt,
       text,
       tokens,
       finish_reason,
       temperature,
       top_p,
       top_k,
       seed,
       tokens_per_s,
       strftime('%Y-%m-%dT%H:%M:%fZ', created_ms / 1000.0, 'unixepoch') AS created_at,
       task,
       expected,
       is_correct
  FROM generation
 WHERE superseded_by IS NULL;

-- Outcomes of evaluations. One done again, of the same step with the same data, replaces the one
-- before. value is NULL where it is not finite; low and high are the 95 % interval of a share.
CREATE VIEW results AS
SELECT run_id,
       step,
       task,
       metric,
       CASE WHEN abs(value) < 9e999 THEN value END AS value,
       low,
       high,
       n,
       correct,
       data_sha256,
       strftime('%Y-%m-%dT%H:%M:%fZ', created_ms / 1000.0, 'unixepoch') AS created_at
  FROM result
 WHERE id IN (SELECT max(id) FROM result
               WHERE superseded_by IS NULL
               GROUP BY run_id, step, task, metric, data_sha256);

CREATE VIEW datasets AS
SELECT id,
       path,
       source,
       sha256,
       bytes,
       rows,
       tokens
  FROM dataset;

CREATE VIEW run_datasets AS
SELECT run_id,
       dataset_id,
       role
  FROM run_dataset;

CREATE VIEW sweeps AS
SELECT id,
       name,
       stage,
       search,
       space,
       status,
       strftime('%Y-%m-%dT%H:%M:%fZ', created_ms / 1000.0, 'unixepoch') AS created_at,
       objective,
       command
  FROM sweep;

-- objective is the least finite value of the sweep's metric; params holds the swept values as JSON.
-- (Written without the JSON functions: a connection that does not trust schemas refuses them.)
CREATE VIEW sweep_leaderboard AS
SELECT sweep_id,
       row_number() OVER (PARTITION BY sweep_id
                          ORDER BY objective IS NULL, objective, run_id) AS rank,
       run_id,
       name,
       status,
       objective,
       params
  FROM (SELECT r.sweep_id,
               r.id AS run_id,
               r.name,
               r.status,
               (SELECT s.min FROM series s
                 WHERE s.run_id = r.id
                   AND s.metric_id = (SELECT id FROM metric WHERE name = w.objective)) AS objective,
               (SELECT '{' || group_concat(
                          '"' || p.name || '":' ||
                          CASE WHEN p.number IS NOT NULL OR p.value IN ('true', 'false')
                               THEN p.value
                               ELSE '"' || replace(replace(replace(p.value, '\', '\\'), '"', '\"'),
                                                   char(10), '\n') || '"' END, ',') || '}'
                  FROM param p
                 WHERE p.run_id = r.id
                   AND instr(w.space, '"' || p.name || '"') > 0) AS params
          FROM run r
          JOIN sweep w ON w.id = r.sweep_id);

CREATE VIEW events AS
SELECT run_id,
       strftime('%Y-%m-%dT%H:%M:%fZ', time_ms / 1000.0, 'unixepoch') AS time,
       level,
       kind,
       message,
       id
  FROM event;

-- One row per run with the common hyperparameters as columns.
CREATE VIEW run_wide AS
SELECT r.*,
       (SELECT value FROM param p WHERE p.run_id = r.id AND p.name = 'preset') AS preset,
       (SELECT CAST(value AS INTEGER) FROM param p
         WHERE p.run_id = r.id AND p.name = 'hidden_size') AS hidden_size,
       (SELECT CAST(value AS INTEGER) FROM param p
         WHERE p.run_id = r.id AND p.name = 'num_hidden_layers') AS num_hidden_layers,
       (SELECT CAST(value AS INTEGER) FROM param p
         WHERE p.run_id = r.id AND p.name = 'num_attention_heads') AS num_attention_heads,
       (SELECT CAST(value AS INTEGER) FROM param p
         WHERE p.run_id = r.id AND p.name = 'num_key_value_heads') AS num_key_value_heads,
       (SELECT CAST(value AS INTEGER) FROM param p
         WHERE p.run_id = r.id AND p.name = 'intermediate_size') AS intermediate_size,
       (SELECT CAST(value AS INTEGER) FROM param p
         WHERE p.run_id = r.id AND p.name = 'vocab_size') AS vocab_size,
       (SELECT CAST(value AS INTEGER) FROM param p
         WHERE p.run_id = r.id AND p.name = 'max_seq_len') AS max_seq_len,
       (SELECT CAST(value AS REAL) FROM param p
         WHERE p.run_id = r.id AND p.name = 'learning_rate') AS learning_rate,
       (SELECT value FROM param p
         WHERE p.run_id = r.id AND p.name = 'lr_schedule') AS lr_schedule,
       (SELECT CAST(value AS INTEGER) FROM param p
         WHERE p.run_id = r.id AND p.name = 'warmup_steps') AS warmup_steps,
       (SELECT CAST(value AS INTEGER) FROM param p
         WHERE p.run_id = r.id AND p.name = 'batch_size') AS batch_size,
       (SELECT CAST(value AS INTEGER) FROM param p
         WHERE p.run_id = r.id AND p.name = 'accumulation_steps') AS accumulation_steps,
       (SELECT CAST(value AS REAL) FROM param p
         WHERE p.run_id = r.id AND p.name = 'weight_decay') AS weight_decay,
       (SELECT CAST(value AS REAL) FROM param p
         WHERE p.run_id = r.id AND p.name = 'grad_clip') AS grad_clip
  FROM runs r;
