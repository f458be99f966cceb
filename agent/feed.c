/* feed.c - a writer of real input: its part of the groups in random order, each in one commit; see feed.h.
 *
 * With --progress-file it notes after every commit how far it has come, so that a writer that takes the place
 * of a killed one goes on behind the last commit that was acknowledged: if that one was lost, nobody writes
 * it again and the comparison finds out.
 */
#include "feed.h"
#include "os/os.h"

struct feeder {
    struct session s;
    shale_batch *batch;
    struct buf value;
    int progress; /* descriptor; -1: none */
    struct {
        uint64_t round, done; /* commits of that round that were acknowledged */
    } at;
};

static int open_progress(struct feeder *f)
{
    const char *name = f->s.job->progress_file;
    size_t got = 0;
    f->progress = -1;
    if (name == NULL) {
        return 0;
    }
    int status = os_open(AT_FDCWD, name, O_RDWR | O_CREAT, 0600, &f->progress);
    if (status == SHALE_OK) {
        status = os_pread(f->progress, &f->at, sizeof f->at, 0, &got);
    }
    if (status != SHALE_OK) {
        return complain_library(f->s.job, status, name);
    }
    if (got != sizeof f->at) {
        f->at.round = f->at.done = 0;
    }
    return 0;
}

static int note_progress(struct feeder *f, uint64_t round, uint64_t done)
{
    f->at.round = round;
    f->at.done = done;
    return f->progress >= 0 ? os_pwrite(f->progress, &f->at, sizeof f->at, 0) : SHALE_OK;
}

static int add_record(struct feeder *f, const struct record *r, uint64_t round)
{
    int status;
    f->value.size = 0;
    if (round != 0 && round != ROUND_LAST) {
        status = buf_printf(&f->value, "round %llu\n", (unsigned long long)round);
        if (status != SHALE_OK) {
            return status;
        }
    }
    status = buf_append(&f->value, r->val, r->vallen);
    return status == SHALE_OK ? shale_batch_put(f->batch, r->key, r->keylen, f->value.data, f->value.size)
                              : status;
}

static int write_group(struct feeder *f, size_t group, uint64_t round)
{
    size_t first, n = group_size(&f->s, group, &first);
    int status = SHALE_OK;
    int64_t start = os_now();
    shale_batch_clear(f->batch);
    for (size_t i = 0; i < n && status == SHALE_OK; i++) {
        status = add_record(f, &f->s.corpus.records[first + i], round);
    }
    if (status == SHALE_OK) {
        status = shale_write(f->s.db, f->batch, 0);
    }
    if (status == SHALE_OK) {
        session_note(&f->s, start, n);
    }
    return status;
}

/* The rest of a round of this writer's groups, in the round's own random order. */
static int write_round(struct feeder *f, uint64_t round, uint64_t from, bool stoppable)
{
    const struct job *job = f->s.job;
    size_t groups = group_count(&f->s), lane = job->part - 1;
    size_t mine = groups > lane ? (groups - lane + job->parts - 1) / job->parts : 0;
    int status = SHALE_OK;
    for (uint64_t k = from; k < mine && status == SHALE_OK && !(stoppable && session_over(&f->s)); k++) {
        status = write_group(f, permute(k, mine, job->seed + round) * job->parts + lane, round);
        if (status == SHALE_OK) {
            status = note_progress(f, round, k + 1);
        }
    }
    return status;
}

static int write_rounds(struct feeder *f)
{
    uint64_t round = f->at.round != 0 ? f->at.round : 1, from = f->at.done;
    int status = SHALE_OK;
    for (; round < ROUND_LAST && status == SHALE_OK && !session_over(&f->s); round++, from = 0) {
        status = write_round(f, round, from, true);
    }
    return status == SHALE_OK ? write_round(f, ROUND_LAST, round == ROUND_LAST ? from : 0, false) : status;
}

int feed_main(const struct job *job)
{
    static struct feeder f;
    f.s.job = job;
    int status = open_progress(&f);
    if (status == 0) {
        status = session_open(&f.s, job);
    }
    if (status == 0) {
        int done = shale_batch_create(&f.batch);
        if (done == SHALE_OK) {
            done = job->rounds ? write_rounds(&f) : write_round(&f, 0, f.at.done, false);
        }
        status = done != SHALE_OK ? complain_library(job, done, "cannot write") : 0;
    }
    shale_batch_destroy(f.batch);
    buf_release(&f.value);
    os_close(&f.progress);
    return session_close(&f.s, status, "writer");
}
