/* test_litmus.c - the order of stores and loads between processes, on the publish path as it is.
 *
 * One process commits, entry after entry, as fast as it can. Others look, as fast as they can, at what it is
 * about to do. What an entry must be is told by its sequence number alone, so that nobody needs another's
 * word:
 *
 *     seq odd    a key that is new, and lies anywhere: a node is linked
 *     seq even   one of a few keys, overwritten: a version is put in front of a chain
 *
 *   whole      an entry that is found, visible or not yet, is all there: a node linked before it was filled
 * in would be found with the head, the log offset or the bytes of another visible    whoever reads
 * visible_seq = s, then takes entry s, has it
 *
 * On x86, where the processor keeps stores in order and loads in order, this finds what the compiler or the
 * author has put in the wrong order; what weaker machines may do is the models' business
 * (tests/models/publish.pml).
 */
#include "lib/lib.h"

#include "db/db.h"

#include <sys/wait.h>

enum { OVERWRITTEN = 16, READERS = 2 };
#define MEMTABLE (32u << 20)

struct shared {
    _Atomic uint32_t ready, over; /* readers that run; the writer has ended */
    _Atomic uint64_t looks[READERS], early[READERS];
};

static char *dir;
static struct shared *shared;

/* In the children: no Check, one exit. */
#define need(c)                                                                                              \
    do {                                                                                                     \
        if (!(c)) {                                                                                          \
            fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, #c, shale_errmsg());             \
            _exit(1);                                                                                        \
        }                                                                                                    \
    } while (0)

struct entry {
    unsigned char key[16], value[24];
};

static struct entry entry_of(uint64_t seq)
{
    struct entry e;
    uint64_t k = seq % 2 != 0 ? seq * UINT64_C(0x9e3779b97f4a7c15) : seq / 2 % OVERWRITTEN;
    uint64_t v = seq * UINT64_C(0xbf58476d1ce4e5b9);
    for (size_t i = 0; i < sizeof e.key;
         i++) { /* tells seq odd from even; the rest begins behind the inline bytes */
        e.key[i] = (unsigned char)(i == 0 ? seq % 2 : k >> (8 * (i % 8)));
    }
    for (size_t i = 0; i < sizeof e.value; i++) {
        e.value[i] = (unsigned char)(v >> (8 * (i % 8)));
    }
    return e;
}

static shale_db *opened(void)
{
    shale_db *db = NULL;
    shale_options o = small_options();
    o.memtable_bytes = MEMTABLE;
    need(shale_open(dir, &o, &db) == SHALE_OK);
    return db;
}

static void write_all(uint64_t n)
{
    shale_db *db = opened();
    while (atomic_load(&shared->ready) < READERS) {
        os_yield();
    }
    for (uint64_t seq = 1; seq <= n; seq++) {
        struct entry e = entry_of(seq);
        need(shale_put(db, e.key, sizeof e.key, e.value, sizeof e.value, 0) == SHALE_OK);
    }
    need(atomic_load(&db->state->visible_seq) == n);
    atomic_store(&shared->over, 1);
    need(shale_close(db) == SHALE_OK);
}

/* Whatever entry it is, it is the one that its sequence number says. */
static void check_hit(const struct mem_hit *hit, const struct entry *asked)
{
    struct entry e = entry_of(hit->seq);
    need(hit->type == WAL_PUT && memcmp(e.key, asked->key, sizeof e.key) == 0);
    need(slice_equal(hit->value, slice_make(e.value, sizeof e.value)));
}

/* The entry that comes after the visible ones: not there, or whole; found before it was visible, it counts.
 */
static bool look_ahead(const struct db_view *v, uint64_t seq)
{
    struct mem_hit hit;
    struct entry e = entry_of(seq);
    int rc = mem_get(v->mem[0], slice_make(e.key, sizeof e.key), UINT64_MAX >> 8, &hit);
    need(rc == SHALE_OK || rc == SHALE_NOTFOUND);
    if (rc == SHALE_OK) {
        check_hit(&hit, &e);
    }
    return rc == SHALE_OK && hit.seq >= seq;
}

/* The last visible one. It may be in an older memtable of the view, since its commit was followed by a
 * rotation. */
static void look_at(const struct db_view *v, uint64_t seq)
{
    struct mem_hit hit;
    struct entry e = entry_of(seq);
    int rc = SHALE_NOTFOUND;
    for (unsigned i = 0; rc == SHALE_NOTFOUND && i < v->mem_count; i++) {
        struct slice key = slice_make(e.key, sizeof e.key);
        rc = mem_may_hold(v->mem[i], key_hash(key)) ? mem_get(v->mem[i], key, seq, &hit) : SHALE_NOTFOUND;
    }
    if (rc != SHALE_NOTFOUND || seq > v->version->last_seq) { /* else it is in a table already */
        need(rc == SHALE_OK && hit.seq == seq);
        check_hit(&hit, &e);
    }
}

static void read_all(unsigned me)
{
    shale_db *db = opened();
    uint64_t looks = 0, early = 0;
    atomic_fetch_add(&shared->ready, 1);
    while (atomic_load_explicit(&shared->over, memory_order_relaxed) == 0) {
        struct db_guard g;
        uint64_t seq;
        need(db_view_enter(db, &g, &seq) == SHALE_OK);
        for (unsigned i = 0; i < 8; i++) {
            early += look_ahead(g.view, seq + 1 + i / 4);
        }
        db_view_leave(db, &g);
        need(db_view_enter(db, &g, &seq) == SHALE_OK);
        if (seq != 0) {
            look_at(g.view, seq);
        }
        db_view_leave(db, &g);
        looks += 9;
    }
    atomic_store(&shared->looks[me], looks);
    atomic_store(&shared->early[me], early);
    need(shale_close(db) == SHALE_OK);
}

static pid_t started(void (*run)(uint64_t), uint64_t argument)
{
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        run(argument);
        _exit(0);
    }
    return pid;
}

static void run_reader(uint64_t me)
{
    read_all((unsigned)me);
}

START_TEST(what_is_visible_is_there_and_what_is_found_is_whole)
{
    uint64_t n = test_times(200000, 20000000), looks = 0, early = 0;
    pid_t pid[READERS + 1];
    dir = scratch_dir("litmus");
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(shared != MAP_FAILED);
    pid[READERS] = started(write_all, n);
    for (unsigned i = 0; i < READERS; i++) {
        pid[i] = started(run_reader, i);
    }
    for (unsigned i = 0; i <= READERS; i++) {
        int status;
        pid_t ended = wait(&status);
        if (ended < 0 || status != 0) {
            for (unsigned k = 0; k <= READERS; k++) {
                (void)kill(pid[k], SIGKILL);
            }
        }
        ck_assert_msg(ended > 0 && status == 0, "process %d: wait status %d", (int)ended, status);
    }
    for (unsigned i = 0; i < READERS; i++) {
        looks += atomic_load(&shared->looks[i]);
        early += atomic_load(&shared->early[i]);
    }
    printf("%llu commits, %llu looks, %llu of them at what was about to become visible\n",
           (unsigned long long)n, (unsigned long long)looks, (unsigned long long)early);
    ck_assert_uint_gt(looks, 1000);
    (void)munmap(shared, sizeof *shared);
    free(dir);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("litmus");
    TCase *t = tcase_create("litmus");
    tcase_set_timeout(t, test_times(120, 1200));
    tcase_add_test(t, what_is_visible_is_there_and_what_is_found_is_whole);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
