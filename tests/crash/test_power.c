/* test_power.c - the power goes, at any moment and between any two system calls; what is found then holds
 * every commit that was reported durable, and is what the first so many commits made.
 *
 * Agents work on one database while the model (lib/power.h) records what the disk knows. At a moment, chosen
 * at random or by parking one of them at a mark or before a system call, all of them are stopped. From that
 * moment many images are built, each with another part of what was not synced, and each is opened like after
 * a reboot: content, sequence number and every byte are checked, and it can be written. Then the agents go
 * on. Each life of the database but the first begins with an image of the one before, so recovery is recorded
 * like everything else, and a power loss hits it, too.
 */
#include "lib/ledger.h"
#include "lib/lib.h"
#include "lib/power.h"
#include "multi/agent.h"

#include <poll.h>
#include <signal.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

/* Sanitizers make everything several times slower. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { LIVES = 4 };
#else
enum { LIVES = 12 };
#endif
enum { MOST_AGENTS = 3, MOMENTS = 14, IMAGES = 12 };

/* What a killed or finished test leaves behind for the count. */
struct counts {
    _Atomic uint64_t images, moments, parked, killed, readonly, uncertain_names, uncertain_pages, lives;
    _Atomic uint64_t syncs, dir_syncs, failed, passed[OS_MARK_COUNT];
};
static struct counts *counts;

struct worker {
    struct agent agent;
    unsigned id;
    bool here, open, busy, durable, interval, threads; /* threads: more than one */
    bool doomed; /* it is to die: by a thread that is alone, or the recorder would lose count */
};

static struct life {
    struct board *board;
    struct power *disk;
    char *dir, *path; /* of the database, of the recorder */
    struct worker worker[MOST_AGENTS];
    unsigned workers, number;
    bool lazy;    /* hardly anything is synced: whole segments are in doubt */
    bool failing; /* an fdatasync goes wrong now and then */
    uint64_t seed;
    struct power_capture *capture;
    char what[128]; /* the moment, for a message */
} life;

static unsigned below(uint64_t *seed, unsigned n)
{
    return (unsigned)(prng_next(seed) / 64 % n);
}

/* ---- an image ---- */

static shale_options image_options(uint64_t seed)
{
    shale_options o = small_options();
    o.memtable_bytes = 262144;
    o.durable = seed % 2 == 0 ? SHALE_DURABLE_COMMIT : SHALE_DURABLE_OFF;
    return o;
}

/* The image, built anew and left untouched. */
static char *build(struct power_mood mood, uint64_t seed)
{
    char *dir = scratch_name("image");
    ck_assert_msg(power_image(life.capture, mood, seed, dir) == 0, "%s: %s", dir, strerror(errno));
    return dir;
}

/* Ends the test; what was found is there once more, as it was before it was opened. */
#define WRONG(mood, seed, ...)                                                                               \
    do {                                                                                                     \
        char text_[1024];                                                                                    \
        snprintf(text_, sizeof text_, __VA_ARGS__);                                                          \
        char *again_ = build(mood, seed);                                                                    \
        ck_abort_msg(                                                                                        \
            "life %u, %s: names %d, pages %d, memory %d, seed %llu: %s (SHALE_TEST_KEEP=1 keeps %s "         \
            "and %s)",                                                                                       \
            life.number, life.what, (int)(mood).names, (int)(mood).pages, (int)(mood).cache,                 \
            (unsigned long long)(seed), text_, again_, life.dir);                                            \
    } while (0)

static void check_promises(const uint64_t found[LEDGER_WRITERS], struct power_mood mood, uint64_t seed)
{
    for (unsigned w = 0; w < LEDGER_WRITERS; w++) {
        uint64_t durable = atomic_load(&life.disk->writer[w].durable);
        uint64_t started = atomic_load(&life.disk->writer[w].started);
        if (found[w] < durable || found[w] > started) {
            WRONG(mood, seed, "writer %u: %llu commits, %llu were durable and %llu begun", w,
                  (unsigned long long)found[w], (unsigned long long)durable, (unsigned long long)started);
        }
    }
}

static shale_db *open_image(const char *dir, bool readonly, struct power_mood mood, uint64_t seed)
{
    shale_db *db = NULL;
    shale_options o = image_options(seed);
    o.readonly = readonly;
    int rc = shale_open(dir, &o, &db);
    if (rc == SHALE_NODB && readonly) {
        return NULL;
    }
    if (rc != SHALE_OK) {
        WRONG(mood, seed, "shale_open: %s: %s", shale_errname(rc), shale_errmsg());
    }
    return db;
}

/* Writes one more commit, durable; closes. */
static void write_image(shale_db *db, uint64_t found[LEDGER_WRITERS], struct power_mood mood, uint64_t seed)
{
    char err[LEDGER_ERR] = "";
    int rc = shale_verify(db, NULL, NULL);
    if (rc != SHALE_OK) {
        WRONG(mood, seed, "shale_verify: %s: %s", shale_errname(rc), shale_errmsg());
    }
    if (ledger_write(db, 0, ++found[0], SHALE_SYNC, false, err) != SHALE_OK) {
        WRONG(mood, seed, "%s", err);
    }
    rc = shale_close(db);
    if (rc != SHALE_OK) {
        WRONG(mood, seed, "shale_close: %s: %s", shale_errname(rc), shale_errmsg());
    }
}

static void expect_image(shale_db *db, const uint64_t expected[LEDGER_WRITERS], struct power_mood mood,
                         uint64_t seed)
{
    uint64_t now[LEDGER_WRITERS];
    char err[LEDGER_ERR] = "";
    if (ledger_check(db, now, err) != 0 || memcmp(now, expected, sizeof now) != 0) {
        WRONG(mood, seed, "opened once more: %s",
              err[0] != '\0' ? err : "not as many commits as the first time");
    }
    assert_ok(shale_close(db));
}

/* found: what was in it. */
static void check_image(struct power_mood mood, uint64_t seed, uint64_t found[LEDGER_WRITERS])
{
    char err[LEDGER_ERR] = "", *dir = build(mood, seed);
    uint64_t readonly[LEDGER_WRITERS], written[LEDGER_WRITERS];
    shale_db *db = seed % 8 == 1 ? open_image(dir, true, mood, seed) : NULL;
    bool looked = db != NULL;
    if (looked) {
        if (ledger_check(db, readonly, err) != 0) {
            WRONG(mood, seed, "read-only: %s", err);
        }
        assert_ok(shale_close(db));
        atomic_fetch_add(&counts->readonly, 1);
    }
    db = open_image(dir, false, mood, seed);
    if (ledger_check(db, found, err) != 0) {
        WRONG(mood, seed, "%s", err);
    }
    check_promises(found, mood, seed);
    if (looked && memcmp(readonly, found, sizeof readonly) != 0) {
        WRONG(mood, seed, "a read-only handle found other commits");
    }
    memcpy(written, found, sizeof written);
    write_image(db, written, mood, seed);
    if (seed % 4 == 1) {
        expect_image(open_image(dir, false, mood, seed), written, mood, seed);
    }
    ck_assert_int_eq(scratch_remove(dir), 0);
    free(dir);
    atomic_fetch_add(&counts->images, 1);
}

/* ---- a moment ---- */

static void is_gone(struct worker *w, int status)
{
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "agent %u ended with status %#x", w->id,
                  status);
    close(w->agent.to);
    close(w->agent.from);
    w->here = w->open = w->busy = false; /* as it was told */
    atomic_fetch_add(&counts->killed, 1);
}

static void stop(struct worker *w)
{
    int status;
    if (w->here) {
        agent_signal(&w->agent, SIGSTOP);
        ck_assert_int_eq(waitpid(w->agent.pid, &status, WUNTRACED), w->agent.pid);
        if (!WIFSTOPPED(status)) {
            is_gone(w, status);
        }
    }
}

/* A thread may come to its planned place only now. */
static void unpark_all(void)
{
    for (unsigned i = 0; i < life.workers; i++) {
        if (life.worker[i].here && atomic_load(&life.board->agent[i].parked) != 0) {
            agent_unpark(&life.worker[i].agent);
        }
    }
}

/* Until it has answered, or died as it was told. */
static void finish(struct worker *w)
{
    for (unsigned tries = 0; w->busy; tries++) {
        struct pollfd p = {.fd = w->agent.from, .events = POLLIN};
        int status;
        ck_assert_msg(tries < 10000, "agent %u does not get on, last at %s", w->id,
                      os_mark_name((enum os_mark)atomic_load(&life.board->agent[w->id].mark)));
        unpark_all();
        if (poll(&p, 1, 10) == 0) {
            continue;
        }
        if ((p.revents & POLLIN) != 0) {
            (void)agent_done(&w->agent);
            w->busy = false;
        } else {
            ck_assert_int_eq(waitpid(w->agent.pid, &status, 0), w->agent.pid);
            is_gone(w, status);
        }
    }
}

static void go_on(void)
{
    for (unsigned i = 0; i < life.workers; i++) {
        if (life.worker[i].here) {
            agent_signal(&life.worker[i].agent, SIGCONT);
        }
    }
    for (unsigned i = 0; i < life.workers; i++) {
        finish(&life.worker[i]);
    }
    for (unsigned i = 0; i < life.workers; i++) {
        if (life.worker[i].here) {
            agent_must(&life.worker[i].agent, "plan-off");
        }
    }
    unpark_all();
}

/* Everybody stops, images are taken; the last of them is kept as next, its content in found. */
static void moment(unsigned images, char **next, uint64_t found[LEDGER_WRITERS])
{
    unsigned pages, names;
    for (unsigned i = 0; i < life.workers; i++) {
        stop(&life.worker[i]);
    }
    agents_sound(life.board, MOST_AGENTS);
    life.capture = power_capture(life.disk);
    power_uncertain(life.capture, &pages, &names);
    atomic_fetch_add(&counts->moments, 1);
    atomic_fetch_add(&counts->uncertain_names, names);
    atomic_fetch_add(&counts->uncertain_pages, pages);
    for (unsigned i = 0; i < images; i++) {
        struct power_mood mood = power_mood(&life.seed);
        uint64_t seed = prng_next(&life.seed);
        check_image(mood, seed, found);
        if (next != NULL && i + 1 == images) {
            *next = build(mood, seed);
        }
    }
    power_release(life.capture);
    life.capture = NULL;
}

/* Makes the next moment a special one: the worker will stand at a mark, stand before a system call, or be
 * gone. True: it will park. */
static bool make_plan(struct worker *w)
{
    static const struct place {
        enum os_mark mark;
        unsigned most;
    } working[] = {{OS_MARK_APPEND, 200},  {OS_MARK_ROTATE, 4},    {OS_MARK_PREPARE, 12},
                   {OS_MARK_RECYCLE, 8},   {OS_MARK_FLUSH, 400},   {OS_MARK_COMPACT, 8},
                   {OS_MARK_MANIFEST, 24}, {OS_MARK_MANIFEST, 60}, {OS_MARK_SYNC, 20},
                   {OS_MARK_PUBLISH, 200}},
      opening[] = {{OS_MARK_RECOVER, 10}, {OS_MARK_MANIFEST, 8}, {OS_MARK_PREPARE, 4}};
    const struct place *place = w->open ? &working[below(&life.seed, BASE_COUNT(working))]
                                        : &opening[below(&life.seed, BASE_COUNT(opening))];
    static const struct call {
        enum os_op op;
        unsigned most;
    } calls[] = {{OS_OP_SYNCDIR, 12}, {OS_OP_SYNCDIR, 4}, {OS_OP_FSYNC, 12}, {OS_OP_FDATASYNC, 60},
                 {OS_OP_RENAME, 12},  {OS_OP_UNLINK, 24}, {OS_OP_OPEN, 30},  {OS_OP_CLOSE, 60}};
    const struct call *call = &calls[below(&life.seed, BASE_COUNT(calls))];
    unsigned how = below(&life.seed, 8), n = 1 + below(&life.seed, how < 4 ? place->most : call->most);
    const char *mark = os_mark_name(place->mark), *op = os_op_name(call->op);
    if (how == 0 && (!w->open || !w->threads)) {
        w->doomed = true;
        agent_must(&w->agent, "die-at %s %u", mark, n);
        snprintf(life.what, sizeof life.what, "agent %u killed at %s %u", w->id, mark, n);
        return false;
    }
    if (how < 4) {
        agent_must(&w->agent, "park-at %s %u", mark, n);
        snprintf(life.what, sizeof life.what, "agent %u parked at %s %u", w->id, mark, n);
    } else {
        agent_must(&w->agent, "call-at %u park %s", n, op);
        snprintf(life.what, sizeof life.what, "agent %u parked before %s %u", w->id, op, n);
    }
    return true;
}

static void nap(unsigned most_us)
{
    os_nap((int64_t)(1 + below(&life.seed, most_us)) * 1000);
}

static void start(struct worker *w)
{
    agent_start(&w->agent, w->id);
    w->here = true;
    agent_must(&w->agent, "power %s roll=500", life.path);
}

static void tell_open(struct worker *w)
{
    static const char *const durable[] = {"commit", "interval", "off"};
    unsigned d = life.lazy ? 2 : below(&life.seed, 3);
    unsigned threads = below(&life.seed, 3) == 0 && !w->doomed;
    w->threads = threads != 0 || w->id + 1 == MOST_AGENTS;
    w->durable = d == 0;
    w->interval = d == 1;
    agent_tell(
        &w->agent,
        "open %s memtable_bytes=262144 l0_compact=2 max_sealed=%u durable=%s sync_interval_ms=5 threads=%u",
        life.dir, 2 + below(&life.seed, 3), durable[d], threads);
}

static void tell_write(struct worker *w)
{
    static const unsigned sync[] = {0, 2, 20, 100};
    agent_tell(&w->agent, "power-write %u writers=%u ops=%u sync=%u seed=%llu %s %s %s", w->id,
               w->id + 1 == MOST_AGENTS ? LEDGER_WRITERS - w->id : 1, 20 + below(&life.seed, 400),
               life.lazy ? 0 : sync[below(&life.seed, 4)], (unsigned long long)prng_next(&life.seed),
               w->durable ? "durable" : "", life.lazy ? "lazy" : "", life.failing ? "failing" : "");
}

/* Nobody is in the midst of a call: the recorder would lose count. What was not synced stays in the files as
 * they are, and who opens next recovers from them. */
static void perhaps_kill_all(void)
{
    bool threads = false;
    for (unsigned i = 0; i < life.workers; i++) {
        threads = threads || (life.worker[i].here && life.worker[i].threads);
    }
    if (threads || below(&life.seed, 3) != 0) {
        return;
    }
    for (unsigned i = 0; i < life.workers; i++) {
        if (life.worker[i].here) {
            agent_kill(&life.worker[i].agent);
            life.worker[i].here = life.worker[i].open = false;
            atomic_fetch_add(&counts->killed, 1);
        }
    }
}

static void give_work(struct worker *w)
{
    if (w->open) {
        tell_write(w);
    } else {
        tell_open(w);
        w->open = true;
    }
    w->busy = true;
    w->doomed = false;
}

/* Some open, some write, one of them perhaps to a planned place. Who is to be the first to open is alone. */
static void put_to_work(void)
{
    struct worker *planned = below(&life.seed, 4) == 0 ? NULL : &life.worker[below(&life.seed, life.workers)];
    bool parks = false, any_open = false;
    snprintf(life.what, sizeof life.what, "any moment");
    for (unsigned i = 0; i < life.workers; i++) {
        struct worker *w = &life.worker[i];
        if (!w->here) {
            start(w);
        }
        if (w->open && below(&life.seed, 8) == 0) {
            const char *text = agent_ask(&w->agent, "power-close %s", w->interval ? "interval" : "");
            ck_assert_msg(strncmp(text, "ok", 2) == 0 || life.failing, "close: %s", text);
            w->open = false;
        }
        any_open = any_open || w->open;
    }
    if (planned != NULL && life.failing && planned->open && below(&life.seed, 2) == 0) {
        unsigned n = 1 + below(&life.seed, 12);
        bool dies = !planned->threads && below(&life.seed, 3) == 0;
        agent_must(&planned->agent, dies ? "call-at %u die FDATASYNC" : "errno-at FDATASYNC %u 5", n);
        snprintf(life.what, sizeof life.what, "agent %u %s fdatasync %u", planned->id,
                 dies ? "killed in a failing" : "failed by", n);
        give_work(planned);
    } else if (planned != NULL) {
        parks = make_plan(planned);
        give_work(planned);
    }
    for (unsigned i = 0; i < life.workers && (any_open || planned == NULL); i++) {
        if (&life.worker[i] != planned) {
            give_work(&life.worker[i]);
        }
    }
    if (parks && agent_parked(&planned->agent, 200)) {
        atomic_fetch_add(&counts->parked, 1);
    }
    nap(planned != NULL ? 500 : 15000);
}

/* ---- lives ---- */

static void begin_life(char *dir, const uint64_t content[LEDGER_WRITERS])
{
    life.dir = dir;
    life.path = scratch_name("disk");
    life.disk = power_make(life.path, dir);
    for (unsigned w = 0; w < LEDGER_WRITERS; w++) {
        atomic_store(&life.disk->writer[w].started, content[w]);
        atomic_store(&life.disk->writer[w].acknowledged, content[w]);
        atomic_store(&life.disk->writer[w].durable, content[w]);
    }
    life.lazy = below(&life.seed, 3) == 0;
    life.failing = below(&life.seed, 2) == 0;
    life.workers = 1 + below(&life.seed, MOST_AGENTS);
    for (unsigned i = 0; i < MOST_AGENTS; i++) {
        life.worker[i] = (struct worker){.id = i};
    }
}

static void end_life(void)
{
    char *store = NULL;
    for (unsigned i = 0; i < life.workers; i++) {
        if (life.worker[i].here) {
            agent_kill(&life.worker[i].agent);
        }
    }
    atomic_fetch_add(&counts->syncs, atomic_load(&life.disk->syncs));
    atomic_fetch_add(&counts->dir_syncs, atomic_load(&life.disk->dir_syncs));
    atomic_fetch_add(&counts->failed, atomic_load(&life.disk->failed));
    atomic_fetch_add(&counts->lives, 1);
    power_close(life.disk);
    ck_assert_int_gt(asprintf(&store, "%s.store", life.path), 0);
    ck_assert_int_eq(scratch_remove(store), 0);
    ck_assert_int_eq(scratch_remove(life.path), 0);
    ck_assert_int_eq(scratch_remove(life.dir), 0);
    free(store);
    free(life.path);
    free(life.dir);
}

START_TEST(h37_every_durable_commit_and_nothing_but_a_prefix)
{
    unsigned lives = test_times(LIVES, 200), images = test_times(IMAGES, 40);
    uint64_t content[LEDGER_WRITERS] = {0}, seed = test_seed((uint64_t)os_now());
    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    life.seed = seed;
    life.board = proc_board();
    char *next = scratch_dir("life");
    for (life.number = 0; life.number < lives; life.number++) {
        char *before = NULL;
        begin_life(next, content);
        for (unsigned m = 0; m < MOMENTS; m++) {
            put_to_work();
            moment(images, m + 1 == MOMENTS ? &before : NULL, content);
            if (m + 1 < MOMENTS) {
                go_on();
                perhaps_kill_all();
            }
        }
        end_life();
        next = before;
        if (life.number % 5 == 4) { /* a new one now and then, or they only get larger */
            ck_assert_int_eq(scratch_remove(next), 0);
            free(next);
            next = scratch_dir("life");
            memset(content, 0, sizeof content);
        }
    }
    for (unsigned i = 0; i < MOST_AGENTS; i++) {
        for (unsigned m = 0; m < OS_MARK_COUNT; m++) {
            atomic_fetch_add(&counts->passed[m], atomic_load(&life.board->agent[i].passed[m]));
        }
    }
    free(next);
    board_close(life.board);
}
END_TEST

/* ---- the count ---- */

START_TEST(enough_was_at_stake)
{
    static const enum os_mark wanted[] = {OS_MARK_ROTATE,  OS_MARK_PREPARE,  OS_MARK_RECYCLE, OS_MARK_FLUSH,
                                          OS_MARK_COMPACT, OS_MARK_MANIFEST, OS_MARK_RECOVER, OS_MARK_SYNC};
    printf(
        "%llu images of %llu moments in %llu lives; %llu moments at a chosen place, %llu processes killed; "
        "%llu images read before they were recovered\n",
        (unsigned long long)counts->images, (unsigned long long)counts->moments,
        (unsigned long long)counts->lives, (unsigned long long)counts->parked,
        (unsigned long long)counts->killed, (unsigned long long)counts->readonly);
    printf("at a moment: %.1f pages and %.1f changes of names not synced; %llu syncs of files, %llu of the "
           "directory, %llu syncs failed\n",
           (double)counts->uncertain_pages / (double)(counts->moments + 1),
           (double)counts->uncertain_names / (double)(counts->moments + 1), (unsigned long long)counts->syncs,
           (unsigned long long)counts->dir_syncs, (unsigned long long)counts->failed);
    ck_assert_uint_ge(counts->images, LIVES * MOMENTS * IMAGES);
    ck_assert_uint_ge(counts->parked, LIVES / 2);
    ck_assert_uint_ge(counts->killed, LIVES / 6);
    ck_assert_uint_gt(counts->uncertain_pages, counts->moments);
    ck_assert_uint_gt(counts->uncertain_names, counts->moments);
    for (size_t i = 0; i < BASE_COUNT(wanted); i++) {
        printf("  %-9s passed %llu times\n", os_mark_name(wanted[i]),
               (unsigned long long)counts->passed[wanted[i]]);
        ck_assert_uint_ge(counts->passed[wanted[i]], 20);
    }
    fflush(stdout);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("power");
    TCase *t = tcase_create("power"), *count = tcase_create("count");
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED) {
        abort();
    }
    tcase_set_timeout(t, test_times(400, 14400));
    tcase_set_timeout(count, 60);
    tcase_add_test(t, h37_every_durable_commit_and_nothing_but_a_prefix);
    tcase_add_test(count, enough_was_at_stake);
    suite_add_tcase(s, t);
    suite_add_tcase(s, count);
    return s;
}

/* Syncs need not reach a disk here: what they mean is the model's business. */
int main(int argc, char **argv)
{
    struct statvfs fs;
    if (getenv("TMPDIR") == NULL && statvfs("/dev/shm", &fs) == 0 &&
        (uint64_t)fs.f_bavail * fs.f_frsize >= (UINT64_C(256) << 20) && access("/dev/shm", W_OK) == 0) {
        (void)setenv("TMPDIR", "/dev/shm", 0);
    }
    agent_own = agent_power;
    return test_run(argc, argv, suite);
}
