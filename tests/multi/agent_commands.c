#include "agent.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>

static void cmd_quit(struct agent_self *a, const struct agent_line *line)
{
    (void)line;
    shale_iter_destroy(a->iter);
    shale_txn_abort(a->txn);
    for (unsigned i = 0; i < AGENT_SNAPSHOTS; i++) {
        shale_snapshot_release(a->snap[i]);
    }
    int rc = SHALE_OK;
    for (unsigned i = 0; i < BASE_COUNT(a->db); i++) {
        int one = shale_close(a->db[i]);
        rc = rc == SHALE_OK ? one : rc;
    }
    a->quit = true;
    agent_status(rc);
}

static void cmd_pid(struct agent_self *a, const struct agent_line *line)
{
    (void)a, (void)line;
    agent_ok("%d", (int)getpid());
}

static void cmd_use(struct agent_self *a, const struct agent_line *line)
{
    a->current = (unsigned)atoi(line->word[0]) % (unsigned)BASE_COUNT(a->db);
    agent_ok("%u", a->current);
}

/* open DIR [option=value...]: the options of shale_options_set, on top of small, unsynced, threads=0. */
static void cmd_open(struct agent_self *a, const struct agent_line *line)
{
    static const char *const small[][2] = {{"threads", "0"},        {"memtable_bytes", "65536"},
                                           {"durable", "off"},      {"target_table_bytes", "65536"},
                                           {"block_bytes", "1024"}, {"level_ratio", "4"}};
    shale_options *o = NULL;
    int rc = shale_options_create(&o);
    for (size_t i = 0; i < BASE_COUNT(small) && rc == SHALE_OK; i++) {
        rc = shale_options_set(o, small[i][0], small[i][1]);
    }
    for (unsigned i = 1; i < line->count && rc == SHALE_OK; i++) {
        char name[64];
        const char *eq = strchr(line->word[i], '=');
        snprintf(name, sizeof name, "%.*s", eq != NULL ? (int)(eq - line->word[i]) : 0, line->word[i]);
        rc = shale_options_set(o, name, eq != NULL ? eq + 1 : "");
    }
    if (rc == SHALE_OK) {
        rc = shale_open(line->word[0], o, &a->db[a->current]);
    }
    shale_options_destroy(o);
    agent_status(rc);
}

static void cmd_close(struct agent_self *a, const struct agent_line *line)
{
    (void)line;
    int rc = shale_close(agent_db(a));
    a->db[a->current] = NULL;
    agent_status(rc);
}

static void cmd_put(struct agent_self *a, const struct agent_line *line)
{
    agent_status(shale_put(agent_db(a), line->word[0], strlen(line->word[0]), line->word[1],
                           strlen(line->word[1]), agent_write_flags(line)));
}

static void cmd_del(struct agent_self *a, const struct agent_line *line)
{
    agent_status(shale_delete(agent_db(a), line->word[0], strlen(line->word[0]), agent_write_flags(line)));
}

/* fill PREFIX FROM COUNT BYTES [sync]: PREFIX%08d -> BYTES of it, repeated. */
static void cmd_fill(struct agent_self *a, const struct agent_line *line)
{
    unsigned long from = strtoul(line->word[1], NULL, 0), count = strtoul(line->word[2], NULL, 0);
    size_t size = strtoul(line->word[3], NULL, 0);
    char *value = malloc(size + 1);
    int rc = value == NULL ? SHALE_NOMEM : SHALE_OK;
    for (unsigned long i = from; i < from + count && rc == SHALE_OK; i++) {
        char key[128];
        int n = snprintf(key, sizeof key, "%s%08lu", line->word[0], i);
        for (size_t j = 0; j < size; j++) {
            value[j] = key[j % (size_t)n];
        }
        rc = shale_put(agent_db(a), key, (size_t)n, value, size, agent_write_flags(line));
        atomic_fetch_add(&a->row->ops, 1);
    }
    free(value);
    agent_status(rc);
}

/* batch put:K:V del:K ... */
static void cmd_batch(struct agent_self *a, const struct agent_line *line)
{
    shale_batch *b = NULL;
    int rc = shale_batch_create(&b);
    for (unsigned i = 0; i < line->count && rc == SHALE_OK; i++) {
        const char *key = line->word[i] + 4, *value = strchr(key, ':');
        if (strncmp(line->word[i], "put:", 4) == 0 && value != NULL) {
            rc = shale_batch_put(b, key, (size_t)(value - key), value + 1, strlen(value + 1));
        } else if (strncmp(line->word[i], "del:", 4) == 0) {
            rc = shale_batch_delete(b, key, strlen(key));
        }
    }
    if (rc == SHALE_OK) {
        rc = shale_write(agent_db(a), b, agent_write_flags(line));
    }
    shale_batch_destroy(b);
    agent_status(rc);
}

static void answer_value(int rc, shale_value *v)
{
    if (rc == SHALE_OK) {
        agent_ok("%.*s", (int)v->size, (const char *)v->data);
    } else {
        agent_status(rc);
    }
    shale_value_release(v);
}

/* get K [snapshot=N] */
static void cmd_get(struct agent_self *a, const struct agent_line *line)
{
    shale_value v = {0};
    uint64_t n = agent_number(line, "snapshot", AGENT_SNAPSHOTS);
    const shale_snapshot *snap = n < AGENT_SNAPSHOTS ? a->snap[n] : NULL;
    answer_value(shale_get(agent_db(a), snap, line->word[0], strlen(line->word[0]), &v), &v);
}

/* scan [snapshot=N]: the number of entries */
static void cmd_scan(struct agent_self *a, const struct agent_line *line)
{
    shale_iter *it = NULL;
    uint64_t n = agent_number(line, "snapshot", AGENT_SNAPSHOTS), count = 0;
    int rc = shale_iter_create(agent_db(a), n < AGENT_SNAPSHOTS ? a->snap[n] : NULL, NULL, &it);
    if (rc == SHALE_OK) {
        for (rc = shale_iter_first(it); rc == SHALE_OK; rc = shale_iter_next(it)) {
            count++;
        }
    }
    shale_iter_destroy(it);
    if (rc == SHALE_NOTFOUND) {
        agent_ok("%llu", (unsigned long long)count);
    } else {
        agent_status(rc);
    }
}

static void cmd_snapshot(struct agent_self *a, const struct agent_line *line)
{
    unsigned n = (unsigned)atoi(line->word[0]) % AGENT_SNAPSHOTS;
    shale_snapshot_release(a->snap[n]);
    a->snap[n] = NULL;
    agent_status(shale_snapshot_create(agent_db(a), &a->snap[n]));
}

static void cmd_release(struct agent_self *a, const struct agent_line *line)
{
    unsigned n = (unsigned)atoi(line->word[0]) % AGENT_SNAPSHOTS;
    shale_snapshot_release(a->snap[n]);
    a->snap[n] = NULL;
    agent_ok("%u", n);
}

/* iter open [snapshot=N] | first | last | next | prev | seek K | close: the key it stands on */
static void cmd_iter(struct agent_self *a, const struct agent_line *line)
{
    const char *what = line->word[0], *key = line->count > 1 ? line->word[1] : "";
    int rc = SHALE_INVALID;
    if (strcmp(what, "open") == 0) {
        uint64_t n = agent_number(line, "snapshot", AGENT_SNAPSHOTS);
        shale_iter_destroy(a->iter);
        a->iter = NULL;
        agent_status(shale_iter_create(agent_db(a), n < AGENT_SNAPSHOTS ? a->snap[n] : NULL, NULL, &a->iter));
        return;
    }
    if (strcmp(what, "close") == 0) {
        shale_iter_destroy(a->iter);
        a->iter = NULL;
        agent_status(SHALE_OK);
        return;
    }
    if (strcmp(what, "first") == 0) {
        rc = shale_iter_first(a->iter);
    } else if (strcmp(what, "last") == 0) {
        rc = shale_iter_last(a->iter);
    } else if (strcmp(what, "next") == 0) {
        rc = shale_iter_next(a->iter);
    } else if (strcmp(what, "prev") == 0) {
        rc = shale_iter_prev(a->iter);
    } else if (strcmp(what, "seek") == 0) {
        rc = shale_iter_seek(a->iter, key, strlen(key));
    }
    if (rc != SHALE_OK) {
        agent_status(rc);
        return;
    }
    size_t n;
    const void *k = shale_iter_key(a->iter, &n);
    agent_ok("%.*s", (int)n, (const char *)k);
}

/* txn begin [timeout=MS] | get K | put K V | del K | commit | abort */
static void cmd_txn(struct agent_self *a, const struct agent_line *line)
{
    const char *what = line->word[0], *key = line->count > 1 ? line->word[1] : "";
    const char *value = line->count > 2 ? line->word[2] : "";
    shale_value v = {0};
    if (strcmp(what, "begin") == 0) {
        agent_status(shale_txn_begin(agent_db(a), agent_write_flags(line),
                                     (int64_t)agent_number(line, "timeout", UINT64_MAX), &a->txn));
    } else if (strcmp(what, "get") == 0) {
        answer_value(shale_txn_get(a->txn, key, strlen(key), &v), &v);
    } else if (strcmp(what, "put") == 0) {
        agent_status(shale_txn_put(a->txn, key, strlen(key), value, strlen(value)));
    } else if (strcmp(what, "del") == 0) {
        agent_status(shale_txn_delete(a->txn, key, strlen(key)));
    } else {
        int rc = SHALE_OK;
        if (strcmp(what, "commit") == 0) {
            rc = shale_txn_commit(a->txn);
        } else {
            shale_txn_abort(a->txn);
        }
        a->txn = NULL;
        agent_status(rc);
    }
}

static void cmd_flush(struct agent_self *a, const struct agent_line *line)
{
    (void)line;
    agent_status(shale_flush(agent_db(a)));
}

static void cmd_compact(struct agent_self *a, const struct agent_line *line)
{
    (void)line;
    agent_status(shale_compact_range(agent_db(a), NULL, 0, NULL, 0, NULL, NULL));
}

static void cmd_work(struct agent_self *a, const struct agent_line *line)
{
    (void)line;
    uint64_t done = 0;
    int rc = shale_work(agent_db(a), SHALE_WORK_FLUSH | SHALE_WORK_COMPACT, UINT64_MAX, &done);
    if (rc == SHALE_OK) {
        agent_ok("%llu", (unsigned long long)done);
    } else {
        agent_status(rc);
    }
}

static void cmd_verify(struct agent_self *a, const struct agent_line *line)
{
    (void)line;
    agent_status(shale_verify(agent_db(a), NULL, NULL));
}

static void cmd_checkpoint(struct agent_self *a, const struct agent_line *line)
{
    agent_status(shale_checkpoint(agent_db(a), line->word[0], NULL, NULL));
}

static void cmd_sync(struct agent_self *a, const struct agent_line *line)
{
    (void)line;
    agent_status(shale_sync(agent_db(a)));
}

static void cmd_timeout(struct agent_self *a, const struct agent_line *line)
{
    agent_status(shale_set_timeout(agent_db(a), atoll(line->word[0])));
}

static const struct {
    const char *name;
    size_t offset;
} stat_fields[] = {
    {"commits", offsetof(shale_stats, commits)}, {"compactions", offsetof(shale_stats, compactions)},
    {"epoch", offsetof(shale_stats, epoch)},     {"flushes", offsetof(shale_stats, flushes)},
    {"fsyncs", offsetof(shale_stats, fsyncs)},   {"seq", offsetof(shale_stats, seq)},
    {"stalls", offsetof(shale_stats, stalls)},
};

/* stat FIELD; the number of handles is one too. */
static void cmd_stat(struct agent_self *a, const struct agent_line *line)
{
    shale_stats s = {.size = sizeof s};
    int rc = shale_stat(agent_db(a), &s);
    if (rc != SHALE_OK) {
        agent_status(rc);
        return;
    }
    for (size_t i = 0; i < BASE_COUNT(stat_fields); i++) {
        if (strcmp(line->word[0], stat_fields[i].name) == 0) {
            uint64_t value;
            memcpy(&value, (const char *)&s + stat_fields[i].offset, sizeof value);
            agent_ok("%llu", (unsigned long long)value);
            return;
        }
    }
    if (strcmp(line->word[0], "handles") == 0) {
        agent_ok("%u", s.handles);
    } else {
        agent_status(SHALE_NOTFOUND);
    }
}

static void cmd_property(struct agent_self *a, const struct agent_line *line)
{
    char text[2048] = "";
    size_t need = 0;
    int rc = shale_property(agent_db(a), line->word[0], text, sizeof text, &need);
    if (rc == SHALE_OK) {
        agent_ok("%s", text);
    } else {
        agent_status(rc);
    }
}

static void cmd_destroy(struct agent_self *a, const struct agent_line *line)
{
    (void)a;
    agent_status(shale_destroy(line->word[0]));
}

/* cover PATH SIZE: a tmpfs of that size over PATH, in a mount namespace of this process's own; then, of
 * another size. */
static void cmd_cover(struct agent_self *a, const struct agent_line *line)
{
    static bool covered;
    char size[64];
    snprintf(size, sizeof size, "size=%s", line->word[1]);
    (void)a;
    if (!covered && (unshare(geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS) != 0 ||
                     mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)) {
        agent_status(err_sys("unshare"));
        return;
    }
    if (mount("cover", line->word[0], "tmpfs", covered ? MS_REMOUNT : 0, size) != 0) {
        agent_status(err_sys("mount"));
        return;
    }
    covered = true;
    agent_ok("%s", size);
}

const struct agent_command agent_commands[] = {
    {"quit", 0, cmd_quit},       {"pid", 0, cmd_pid},           {"use", 1, cmd_use},
    {"open", 1, cmd_open},       {"close", 0, cmd_close},       {"put", 2, cmd_put},
    {"del", 1, cmd_del},         {"fill", 4, cmd_fill},         {"batch", 1, cmd_batch},
    {"get", 1, cmd_get},         {"scan", 0, cmd_scan},         {"snapshot", 1, cmd_snapshot},
    {"release", 1, cmd_release}, {"iter", 1, cmd_iter},         {"txn", 1, cmd_txn},
    {"flush", 0, cmd_flush},     {"compact", 0, cmd_compact},   {"work", 0, cmd_work},
    {"verify", 0, cmd_verify},   {"sync", 0, cmd_sync},         {"timeout", 1, cmd_timeout},
    {"stat", 1, cmd_stat},       {"property", 1, cmd_property}, {"checkpoint", 1, cmd_checkpoint},
    {"cover", 2, cmd_cover},     {"destroy", 1, cmd_destroy},   {NULL, 0, NULL},
};
